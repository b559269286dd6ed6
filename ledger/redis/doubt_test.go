package redis_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// What no replica has confirmed is not acknowledged when it is asked for once more.
func TestRecordedIsConfirmed(t *testing.T) {
	r := single(t, service.RedisOptions{})
	first := open(t, r.URL(), redis.Options{})
	tx := ledger.Transaction{ChainID: 84532, Wallet: common.Address{9}, Nonce: 7, Hash: common.Hash{1}, Raw: []byte{1}}
	if err := first.Record(t.Context(), tx, "request"); err != nil {
		t.Fatal(err)
	}
	replicas := 1 // there is none
	second := open(t, r.URL(), redis.WithPatience(redis.Options{Replicas: &replicas}, 100*time.Millisecond))
	if err := second.Record(t.Context(), tx, "request"); !errors.Is(err, redis.ErrUnanswered) {
		t.Errorf("%v, want that it is not confirmed", err)
	}
}

// cutAnswer is a connection that loses all answers from the one on at which left comes to zero.
type cutAnswer struct {
	net.Conn
	left *atomic.Int64
}

func (c *cutAnswer) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.left.Add(-1) <= 0 {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// What was done before its answer was lost is not taken for undone because the server refuses the next try. Record would
// give the payments of a transaction free that is recorded.
func TestRefusedAfterAnAnswerWasLost(t *testing.T) {
	r := single(t, service.RedisOptions{})
	var left atomic.Int64
	left.Store(1 << 30)
	s := open(t, r.URL(), redis.WithDialer(redis.Options{}, func(ctx context.Context, network, address string) (net.Conn, error) {
		if left.Load() <= 0 {
			return refusing(), nil
		}
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &cutAnswer{c, &left}, err
	}))
	wallet := common.Address{8}
	if err := s.AdvanceNonce(t.Context(), 84532, wallet, 3); err != nil {
		t.Fatal(err)
	}
	left.Store(2) // the first answer tells of the wallet, the second that it was changed
	if err := s.AdvanceNonce(t.Context(), 84532, wallet, 5); !errors.Is(err, redis.ErrUnanswered) {
		t.Errorf("%v, want that the outcome is not known", err)
	}
	if n, _, err := open(t, r.URL(), redis.Options{}).Nonce(t.Context(), 84532, wallet); n != 5 || err != nil {
		t.Errorf("%d, %v, want that it was changed", n, err)
	}
}

// refusing is a connection to a server that has too many clients.
func refusing() net.Conn {
	ours, theirs := net.Pipe()
	go func() {
		defer func() { _ = theirs.Close() }()
		b := make([]byte, 4096)
		for {
			if _, err := theirs.Read(b); err != nil {
				return
			}
			_, _ = theirs.Write([]byte("-ERR max number of clients reached\r\n"))
		}
	}()
	return ours
}

// An entry whose payment is forgotten while entries are read does not end the list: who reads it page by page would stop
// there, and an anchor would leave out all that follows.
func TestEntriesOfAForgottenPayment(t *testing.T) {
	r := single(t, service.RedisOptions{})
	now := time.Now().Add(-time.Hour)
	s := open(t, r.URL(), redis.Options{Now: func() time.Time { return now }})
	var last ledger.Payment
	for i := range 40 {
		p, err := s.Claim(t.Context(), newPayment(t, byte(i), uint64(i)), ledger.Change{})
		if err != nil {
			t.Fatal(err)
		}
		if now = now.Add(time.Millisecond); i == 3 {
			keys, err := r.Do(t.Context(), "KEYS", "*:p:"+strings.TrimPrefix(p.ID, "pay_"))
			if err != nil {
				t.Fatal(err)
			}
			// This is what Sweep does between the two reads, as far as they can see.
			if _, err := r.Do(t.Context(), "DEL", keys.([]any)[0]); err != nil {
				t.Fatal(err)
			}
		}
		last = p
	}
	got, err := s.Entries(t.Context(), ledger.Mark{}, now, 10)
	if err != nil || len(got) != 10 {
		t.Errorf("%d entries, %v, want 10", len(got), err)
	}
	got, err = s.Entries(t.Context(), ledger.Mark{}, now, 1000)
	if err != nil || len(got) != 39 || got[38].Payment != last.ID {
		t.Errorf("%d entries, %v, want 39", len(got), err)
	}
}

// While a Cluster moves a part to another server, nothing is left half done: what was held is due again afterwards.
func TestDueWhileASlotMoves(t *testing.T) {
	c := cluster(t, 0)
	s := open(t, c.URL(), redis.WithPatience(redis.Options{}, 300*time.Millisecond))
	ctx := t.Context()
	held, err := s.Claim(ctx, newPayment(t, 1, 1), ledger.Change{Hold: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for n, hold := range []time.Duration{0, time.Hour} { // so that the list of what is due, and of what is held, are there
		if _, err := s.Claim(ctx, newPayment(t, 1, uint64(2+n)), ledger.Change{Hold: hold}); err != nil {
			t.Fatal(err)
		}
	}
	do := func(r *service.Redis, args ...any) any {
		t.Helper()
		got, err := r.Do(ctx, args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return got
	}
	var from, to *service.Redis
	var key string
	for _, r := range c.Primaries {
		if keys := do(r, "KEYS", "*:p:"+strings.TrimPrefix(held.ID, "pay_")).([]any); len(keys) == 1 {
			from, key = r, keys[0].(string)
		} else {
			to = r
		}
	}
	part, _, _ := strings.Cut(key, ":p:")
	do(from, "SET", part+":f", "1") // as after the first anchor
	slot, here, there := do(from, "CLUSTER", "KEYSLOT", key), do(from, "CLUSTER", "MYID"), do(to, "CLUSTER", "MYID")
	host, port, _ := net.SplitHostPort(to.Addr())
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)
	do(from, "MIGRATE", host, port, key, 0, 5000)
	time.Sleep(time.Until(held.Hold.Until) + 50*time.Millisecond)
	if got, err := s.Lease(ctx, 10, time.Millisecond); err == nil {
		for _, p := range got {
			if p.ID == held.ID {
				t.Log("it was leased in the middle of the move")
			}
		}
	}
	for _, k := range do(from, "CLUSTER", "GETKEYSINSLOT", slot, 1000).([]any) {
		do(from, "MIGRATE", host, port, k, 0, 5000)
	}
	do(to, "CLUSTER", "SETSLOT", slot, "NODE", there)
	do(from, "CLUSTER", "SETSLOT", slot, "NODE", there)
	for deadline := time.Now().Add(20 * time.Second); ; {
		got, err := s.Lease(ctx, 10, time.Millisecond)
		for _, p := range got {
			if p.ID == held.ID {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never became due; the last answer: %d payments, %v", len(got), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
