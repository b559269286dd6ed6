package redis_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// waits is how often the server was asked to wait for replicas.
func waits(t *testing.T, r *service.Redis) string {
	t.Helper()
	got, err := r.Do(t.Context(), "INFO", "commandstats")
	text, _ := got.(string)
	_, rest, _ := strings.Cut(text, "cmdstat_wait:calls=")
	calls, _, found := strings.Cut(rest, ",")
	if err != nil || !found {
		t.Fatalf("how often it waited: %v", err)
	}
	return calls
}

// What no replica has confirmed is not read as if it were there: a failover would forget it. Once it is confirmed, reads cost what they did.
func TestReadIsConfirmed(t *testing.T) {
	primary, replica := single(t, service.RedisOptions{}), single(t, service.RedisOptions{})
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replica.Do(t.Context(), "REPLICAOF", host, port); err != nil {
		t.Fatal(err)
	}
	replicas := 1
	s := open(t, primary.URL(), redis.WithPatience(redis.Options{Replicas: &replicas}, time.Second))
	ctx, p := t.Context(), newPayment(t, 1, 1)
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err = s.Claim(ctx, newPayment(t, 2, 1), ledger.Change{}); err == nil || errors.Is(err, ledger.ErrExists) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never came to replicate: %v", err)
		}
	}
	reads := map[string]func() error{
		"Payment":         func() error { _, err := s.Payment(ctx, p.ID); return err },
		"ByAuthorization": func() error { _, err := s.ByAuthorization(ctx, p.AuthorizationID); return err },
		"Unserved":        func() error { _, err := s.Unserved(ctx, p, 10); return err },
		"LivePlans":       func() error { _, err := s.LivePlans(ctx, p.Payer, "weather", "api.example.com", 10); return err },
		"Reservation":     func() error { _, err := s.Reservation(ctx, common.Hash{1}); return err },
		"Allowance":       func() error { _, err := s.Allowance(ctx, common.Hash{1}); return err },
		"Object":          func() error { _, err := s.Object(ctx, "key", "a"); return err },
		"Objects":         func() error { _, err := s.Objects(ctx, "key", "", "", 10); return err },
		"DueObjects":      func() error { _, err := s.DueObjects(ctx, "key", s.Now(), 10); return err },
		"Nonce":           func() error { _, _, err := s.Nonce(ctx, 84532, common.Address{9}); return err },
		"Transactions":    func() error { _, err := s.Transactions(ctx, p.ID); return err },
	}
	for name, read := range reads {
		if err := read(); err != nil && !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := replica.Pause(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(ctx, p, ledger.Change{}); !errors.Is(err, redis.ErrUnanswered) || !strings.Contains(err.Error(), "0 of 1") {
		t.Errorf("claim: %v, want that it is not confirmed", err)
	}
	reads["Claim"] = func() error { _, err := s.Claim(ctx, p, ledger.Change{}); return err }
	var wg sync.WaitGroup
	for name, read := range reads {
		wg.Go(func() {
			if err := read(); !errors.Is(err, redis.ErrUnanswered) {
				t.Errorf("%s: %v, want that it is not confirmed", name, err)
			}
		})
	}
	wg.Wait()
	if got, err := s.List(ctx, ledger.Query{Limit: 5}); err != nil || len(got) != 2 {
		t.Errorf("the operator sees %d payments, %v", len(got), err)
	}
	if err := replica.Continue(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Payment(ctx, p.ID); err != nil || got.ID != p.ID {
		t.Errorf("confirmed at last: %+v, %v", got, err)
	}
	before := waits(t, primary)
	if _, err := s.Payment(ctx, p.ID); err != nil || waits(t, primary) != before {
		t.Errorf("a read waits though nothing is in doubt: %v", err)
	}
}

// A server that comes back with another memory, as after a failover, is not taken for what it was.
func TestRecordsOfAnotherServer(t *testing.T) {
	r := single(t, service.RedisOptions{})
	s := open(t, r.URL(), redis.Options{})
	for n := range uint64(2) {
		p, err := s.Claim(t.Context(), newPayment(t, 1, n), ledger.Change{})
		if err != nil {
			t.Fatal(err)
		}
		// From the part's first id on: the store keeps what it knows of the part that it read last.
		got, err := s.Records(t.Context(), "pay_"+ledger.Shard(p.Payer)+"2", 1)
		if err != nil || len(got) != 1 || got[0].Payment.ID != p.ID {
			t.Fatalf("%d: %v, %v, want %s", n, got, err, p.ID)
		}
		if n > 0 {
			break
		}
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(r.Dir(), "appendonlydir")); err != nil {
			t.Fatal(err)
		}
		if err := r.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
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
	for range 2 { // then the server knows all scripts
		if err := s.AdvanceNonce(t.Context(), 84532, wallet, 3); err != nil {
			t.Fatal(err)
		}
	}
	left.Store(3) // the first answers tell of the wallet and of the ledger, the third that it was changed
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
	s := open(t, c.URL(), redis.WithPatience(redis.Options{}, 2*time.Second))
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
	for deadline := time.Now().Add(time.Minute); ; {
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
