package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// imported is a ledger with one payment, its transaction, a freed nonce and a reservation, copied but for the end.
func imported(t *testing.T, url string) (*redis.Store, ledger.Record, []ledger.Transaction) {
	t.Helper()
	ctx := t.Context()
	from, to := open(t, url, redis.Options{Prefix: "from"}), open(t, url, redis.Options{Prefix: "to"})
	p, err := from.Claim(ctx, newPayment(t, 1, 1), ledger.Change{})
	if err != nil {
		t.Fatal(err)
	}
	txs := []ledger.Transaction{
		{ChainID: 84532, Wallet: common.Address{9}, Nonce: 0, Hash: common.Hash{1}, Raw: []byte{1}, Payments: []string{p.ID}},
		{ChainID: 84532, Wallet: common.Address{9}, Nonce: 1, Hash: common.Hash{2}, Raw: []byte{1}},
	}
	for _, tx := range txs {
		if err := from.Record(ctx, tx, "request"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := from.Reserve(ctx, ledger.Reservation{Key: common.Hash{5}, Payment: p.ID}, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	var part ledger.Part
	if part.Records, err = from.Records(ctx, "", 10); err != nil {
		t.Fatal(err)
	}
	if part.Wallets, err = from.Wallets(ctx); err != nil {
		t.Fatal(err)
	}
	err = from.EachReservation(ctx, func(r ledger.Reservation) error { part.Reservations = append(part.Reservations, r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Import(ctx, part); err != nil {
		t.Fatal(err)
	}
	return to, part.Records[0], txs
}

// Half a ledger can be read; nothing but a copy writes to it, and nobody is told what is not there.
func TestIncomplete(t *testing.T) {
	s, had, txs := imported(t, single(t, service.RedisOptions{}).URL())
	ctx, p := t.Context(), had.Payment
	missing := newPayment(t, 2, 1).ID
	fresh := ledger.Transaction{ChainID: 84532, Wallet: common.Address{9}, Nonce: 2, Hash: common.Hash{3}, Raw: []byte{1}}
	other, another := fresh, fresh
	other.Wallet, another.Payments = common.Address{8}, []string{p.ID}
	update := func(id string, version uint64, e ledger.Event) error {
		_, err := s.Update(ctx, id, version, ledger.Change{Event: e})
		return err
	}
	reserve := func(key byte) error {
		_, err := s.Reserve(ctx, ledger.Reservation{Key: common.Hash{key}, Payment: p.ID}, "", time.Hour)
		return err
	}
	for name, call := range map[string]func() error{
		"Ping":                  func() error { return s.Ping(ctx) },
		"Claim":                 func() error { _, err := s.Claim(ctx, newPayment(t, 1, 2), ledger.Change{}); return err },
		"Lease":                 func() error { _, err := s.Lease(ctx, 10, time.Minute); return err },
		"Update":                func() error { return update(p.ID, p.Version, ledger.EventSettle) },
		"Update, old":           func() error { return update(p.ID, 1, ledger.EventSettle) },
		"Update, wrong":         func() error { return update(p.ID, p.Version, ledger.EventDelivered) },
		"Update, missing":       func() error { return update(missing, 1, ledger.EventSettle) },
		"Record":                func() error { return s.Record(ctx, another, "request") },
		"Record, none":          func() error { return s.Record(ctx, fresh, "request") },
		"Record, a new wallet":  func() error { return s.Record(ctx, other, "request") },
		"Record, again":         func() error { return s.Record(ctx, txs[0], "request") },
		"Record, none again":    func() error { return s.Record(ctx, txs[1], "request") },
		"AdvanceNonce":          func() error { return s.AdvanceNonce(ctx, 84532, common.Address{9}, 10) },
		"AdvanceNonce, nothing": func() error { return s.AdvanceNonce(ctx, 84532, common.Address{9}, 0) },
		"AdvanceNonce, new":     func() error { return s.AdvanceNonce(ctx, 84532, common.Address{7}, 10) },
		"Recheck":               func() error { return s.Recheck(ctx, p.ID, time.Minute) },
		"Recheck, missing":      func() error { return s.Recheck(ctx, missing, time.Minute) },
		"AddAnchor":             func() error { return s.AddAnchor(ctx, ledger.Anchor{Sequence: 1}) },
		"NextAnchor":            func() error { _, err := ledger.NextAnchor(ctx, s, s.Now().Add(time.Hour)); return err },
		"Reserve":               func() error { return reserve(6) },
		"Reserve, taken":        func() error { return reserve(5) },
		"KeepAnswer":            func() error { return s.KeepAnswer(ctx, common.Hash{5}, p.ID, []byte("a"), time.Hour) },
		"KeepAnswer, free":      func() error { return s.KeepAnswer(ctx, common.Hash{6}, p.ID, []byte("a"), time.Hour) },
		"PutObject": func() error {
			_, err := s.PutObject(ctx, ledger.Object{Kind: "key", ID: "a", Body: []byte("1")})
			return err
		},
		"DeleteObject": func() error { return s.DeleteObject(ctx, "key", "a", 1) },
		"Sweep":        func() error { _, err := s.Sweep(ctx, time.Nanosecond, 10); return err },
	} {
		if err := call(); !errors.Is(err, ledger.ErrIncomplete) {
			t.Errorf("%s: %v, want ErrIncomplete", name, err)
		}
	}
	if got, err := s.Payment(ctx, p.ID); err != nil || got != p {
		t.Errorf("read %+v, %v", got, err)
	}
	if nonce, _, err := s.Nonce(ctx, 84532, common.Address{9}); err != nil || nonce != 2 {
		t.Errorf("nonce %d, %v", nonce, err)
	}
	if r, err := s.Reservation(ctx, common.Hash{5}); err != nil || r.Answer != nil {
		t.Errorf("reservation %+v, %v", r, err)
	}
	if wallets, err := s.Wallets(ctx); err != nil || len(wallets) != 1 {
		t.Errorf("wallets %+v, %v", wallets, err)
	}
	if err := s.Import(ctx, ledger.Part{Complete: true}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Ping(ctx), s.Record(ctx, fresh, "request"), update(p.ID, p.Version, ledger.EventSettle), reserve(6)); err != nil {
		t.Errorf("complete: %v", err)
	}
}

// A copy that died while it marked the parts, of which one was just being used, or while it took the marks away: the next
// that tries finds the ledger in use, and leaves it usable everywhere.
func TestBeginningOfACopyDies(t *testing.T) {
	for _, state := range []string{"begun", "ending"} {
		r := single(t, service.RedisOptions{})
		s := open(t, r.URL(), redis.Options{})
		ctx := t.Context()
		set := func(key, value string) {
			t.Helper()
			if _, err := r.Do(ctx, "SET", key, value); err != nil {
				t.Fatal(err)
			}
		}
		p, err := s.Claim(ctx, newPayment(t, 1, 1), ledger.Change{})
		if err != nil {
			t.Fatal(err)
		}
		keys, err := r.Do(ctx, "KEYS", "*:p:"+strings.TrimPrefix(p.ID, "pay_"))
		if err != nil {
			t.Fatal(err)
		}
		used, _, _ := strings.Cut(keys.([]any)[0].(string), "p:")
		set("x402:{a}:meta", state)
		for part := range 64 {
			if at := fmt.Sprintf("x402:{%d}:", part); at != used {
				set(at+"i", "1")
			}
		}
		claim := func() error {
			var errs []error
			for payer := range byte(20) {
				_, err := s.Claim(ctx, newPayment(t, payer, 2), ledger.Change{})
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		}
		if err := claim(); !errors.Is(err, ledger.ErrIncomplete) {
			t.Fatalf("%s: %v, want ErrIncomplete", state, err)
		}
		if err := s.Ping(ctx); !errors.Is(err, ledger.ErrIncomplete) {
			t.Errorf("%s: ping %v, want ErrIncomplete", state, err)
		}
		if err := s.Import(ctx, ledger.Part{}); !errors.Is(err, ledger.ErrExists) {
			t.Errorf("%s: import %v, want ErrExists", state, err)
		}
		for payer := range byte(20) {
			if _, err := s.Claim(ctx, newPayment(t, payer, 3), ledger.Change{}); err != nil {
				t.Errorf("%s: a claim after it: %v", state, err)
			}
		}
		if err := s.Ping(ctx); err != nil {
			t.Errorf("%s: ping after it: %v", state, err)
		}
	}
}

// offered keeps the anchor that it is to add.
type offered struct {
	ledger.Store
	anchor ledger.Anchor
}

func (o *offered) AddAnchor(_ context.Context, a ledger.Anchor) error {
	o.anchor = a
	return nil
}

// An entry that came in below an anchor, after that was made, is not left out for ever: the anchor is refused.
func TestAnchorIsRecounted(t *testing.T) {
	now := time.Now().Add(-time.Hour)
	s := open(t, single(t, service.RedisOptions{}).URL(), redis.Options{Now: func() time.Time { return now }})
	ctx, n := t.Context(), uint64(0)
	claim := func() {
		t.Helper()
		n++
		if _, err := s.Claim(ctx, newPayment(t, byte(n%2), n), ledger.Change{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second anchor begins in the middle of a list
		for range 300 { // more than one list of each part
			now = now.Add(time.Millisecond)
			claim()
		}
		now = s.Now() // no time passes from here on
		o := &offered{Store: s}
		if _, err := ledger.NextAnchor(ctx, o, now.Add(ledger.AnchorLag)); err != nil {
			t.Fatal(err)
		}
		claim()
		if err := s.AddAnchor(ctx, o.anchor); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("an anchor that leaves an entry out: %v, want ErrConflict", err)
		}
		a, err := ledger.NextAnchor(ctx, s, now.Add(ledger.AnchorLag))
		if err != nil || a.Count != 301 {
			t.Errorf("%+v, %v, want 301 entries", a, err)
		}
	}
}

// An answer without content is an answer.
func TestEmptyAnswer(t *testing.T) {
	s := open(t, single(t, service.RedisOptions{}).URL(), redis.Options{})
	ctx := t.Context()
	for name, key := range map[string]common.Hash{"kept": {1}, "reserved with it": {2}} {
		r := ledger.Reservation{Key: key, Payment: "pay_x"}
		if name != "kept" {
			r.Answer = []byte{}
		}
		if _, err := s.Reserve(ctx, r, "", time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, answer := range [][]byte{{}, []byte("late")} {
			if err := s.KeepAnswer(ctx, key, "pay_x", answer, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Reservation(ctx, key); err != nil || got.Answer == nil || len(got.Answer) != 0 {
			t.Errorf("%s: %q, %v, want an empty answer", name, got.Answer, err)
		}
	}
}
