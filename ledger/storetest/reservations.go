package storetest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// reserve makes a reservation of the key n and checks what is answered: the reservation itself, or the one of the payment had.
func (f *fixture) reserve(n uint64, payment, over string, ttl time.Duration, had string) ledger.Reservation {
	f.Helper()
	got, err := f.store().Reserve(f.ctx, ledger.Reservation{Key: hash(n), Fingerprint: hash(n + 1), Payment: payment}, over, ttl)
	switch {
	case had == "" && (err != nil || got.Payment != payment):
		f.Errorf("reserving for %s: %+v, %v", payment, got, err)
	case had != "" && (!errors.Is(err, ledger.ErrExists) || got.Payment != had):
		f.Errorf("reserving for %s: %+v, %v; want ErrExists with %s", payment, got, err, had)
	}
	back, err := f.store().Reservation(f.ctx, hash(n))
	if err != nil || !same(back, got) {
		f.Errorf("read %+v (%v), answered was %+v", back, err, got)
	}
	return got
}

// unreserved finds the key 1 free.
func (f *fixture) unreserved() {
	f.Helper()
	if got, err := f.store().Reservation(f.ctx, hash(1)); !errors.Is(err, ledger.ErrNotFound) {
		f.Errorf("reservation %+v, %v; want ErrNotFound", got, err)
	}
}

func testReserve(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.unreserved()
	asked := ledger.Reservation{
		Key: hash(1), Fingerprint: hash(2), Payment: "pay_a", Answer: []byte{0, 0xff, '"', '\n'},
		CreatedAt: f.clock.Now().Add(-time.Hour), ExpiresAt: f.clock.Now().Add(time.Hour), // not the caller's to say
	}
	got, err := f.store().Reserve(f.ctx, asked, "", time.Minute+7)
	want, now := asked, f.clock.Now().Truncate(time.Microsecond)
	want.CreatedAt, want.ExpiresAt = now, now.Add(time.Minute)
	if err != nil || !same(got, want) {
		t.Errorf("reserved %+v (%v), want %+v", got, err, want)
	}
	if back, err := f.store().Reservation(f.ctx, hash(1)); err != nil || !same(back, want) {
		t.Errorf("read %+v (%v), want %+v", back, err, want)
	}
	// Taken, also for the payment itself, and over another than the one that has it.
	f.reserve(1, "pay_b", "", time.Minute, "pay_a")
	f.reserve(1, "pay_a", "", time.Minute, "pay_a")
	f.reserve(1, "pay_b", "pay_c", time.Minute, "pay_a")
	f.reserve(3, "pay_b", "", time.Minute, "")
	f.clock.Add(time.Minute - time.Microsecond)
	f.reserve(1, "pay_b", "", time.Minute, "pay_a")
	f.clock.Add(time.Microsecond)
	f.unreserved()
	// What has expired is free, and nothing of it comes back.
	got = f.reserve(1, "pay_b", "", time.Minute, "")
	if len(got.Answer) != 0 || !got.CreatedAt.Equal(now.Add(time.Minute)) {
		t.Errorf("an expired reservation shines through: %+v", got)
	}
	f.reserve(1, "pay_b", "pay_b", time.Hour, "") // over itself: longer
	f.clock.Add(30 * time.Minute)
	got = f.reserve(1, "pay_c", "pay_b", time.Minute, "")
	if !got.ExpiresAt.Equal(f.clock.Now().Truncate(time.Microsecond).Add(time.Minute)) {
		t.Errorf("over another: %+v", got)
	}
	f.clock.Add(time.Minute)
	f.reserve(1, "pay_d", "pay_x", time.Minute, "") // free: over does not matter
}

func testKeepAnswer(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	keep := func(payment, answer string, ttl time.Duration, want error) {
		t.Helper()
		if err := f.store().KeepAnswer(f.ctx, hash(1), payment, []byte(answer), ttl); !errors.Is(err, want) {
			t.Errorf("keeping %q: %v, want %v", answer, err, want)
		}
	}
	holds := func(answer string, left time.Duration) {
		t.Helper()
		got, err := f.store().Reservation(f.ctx, hash(1))
		until := f.clock.Now().Truncate(time.Microsecond).Add(left)
		if err != nil || string(got.Answer) != answer || !got.ExpiresAt.Equal(until) || got.Fingerprint != hash(2) {
			t.Errorf("reservation %+v (%v), want the answer %q until %v", got, err, answer, until)
		}
	}
	keep("pay_a", "x", time.Minute, ledger.ErrNotFound)
	f.unreserved()
	f.reserve(1, "pay_a", "", time.Minute, "")
	keep("pay_b", "x", time.Hour, ledger.ErrNotFound)
	holds("", time.Minute)
	big := string(bytes.Repeat([]byte{0, 0xff, 7}, 100_000))
	keep("pay_a", big, time.Hour, nil)
	holds(big, time.Hour)
	f.clock.Add(time.Minute)
	keep("pay_a", "another", 2*time.Hour, nil) // the first answer stays, and its time
	holds(big, time.Hour-time.Minute)
	f.reserve(1, "pay_b", "", time.Minute, "pay_a")
	f.clock.Add(time.Hour - time.Minute)
	f.unreserved()
	keep("pay_a", "late", time.Hour, ledger.ErrNotFound)
	f.unreserved()
	// An answer may shorten the time, too.
	f.reserve(1, "pay_b", "", time.Hour, "")
	keep("pay_b", "short", time.Second, nil)
	f.clock.Add(time.Second)
	f.unreserved()
}

// Of many that want the same, over the same or nothing, one gets it, and the others learn which.
func testOneReservation(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	over := ""
	for range 3 {
		stores := f.instances()
		offers := make([]string, crowd)
		for i := range offers {
			offers[i] = newID(t, uint64(i))
		}
		got, errs := make([]ledger.Reservation, crowd), make([]error, crowd)
		atOnce(crowd, func(i int) {
			r := ledger.Reservation{Key: hash(1), Payment: offers[i]}
			got[i], errs[i] = stores[i%len(stores)].Reserve(f.ctx, r, over, time.Hour)
		})
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("callers %d and %d both reserved it", winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, ledger.ErrExists):
				t.Fatalf("caller %d: %v", i, err)
			}
		}
		if winner < 0 {
			t.Fatal("nobody reserved it")
		}
		for i := range got {
			if got[i].Payment != offers[winner] {
				t.Errorf("caller %d was given %+v, want the winner's", i, got[i])
			}
		}
		over = offers[winner]
	}
}

// Of many that answer for one payment, the first is kept.
func testOneAnswer(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.reserve(1, "pay_a", "", time.Hour, "")
	stores := f.instances()
	seen := make([]string, crowd)
	atOnce(crowd, func(i int) {
		s := stores[i%len(stores)]
		if err := s.KeepAnswer(f.ctx, hash(1), "pay_a", []byte{1, byte(i)}, time.Hour); err != nil {
			t.Error(err)
		}
		r, err := s.Reservation(f.ctx, hash(1))
		if err != nil {
			t.Error(err)
		}
		seen[i] = string(r.Answer)
	})
	for i := range seen {
		if seen[i] != seen[0] || len(seen[i]) != 2 {
			t.Errorf("caller %d reads %q, caller 0 %q", i, seen[i], seen[0])
		}
	}
}
