package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

// furnish adds what else belongs to a ledger.
func furnish(t *testing.T, s ledger.Store) {
	t.Helper()
	ctx := t.Context()
	for i := range uint64(25) {
		r := ledger.Reservation{Key: hash(i), Payment: offer(i).ID, Answer: []byte{0, byte(i)}}
		if _, err := s.Reserve(ctx, r, "", 50*365*24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Revoke(ctx, offer(1).ID, s.Now().Add(50*365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(9) {
		d := ledger.Draw{Key: hash(i), Want: *uint256.NewInt(i + 1), Limit: *uint256.NewInt(10), Until: s.Now().Add(50 * 365 * 24 * time.Hour)}
		if _, _, err := s.Draw(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 11 {
		o := ledger.Object{Kind: "key", ID: fmt.Sprintf("k%d", i), Group: "test", Body: fmt.Appendf(nil, "%q", strings.Repeat("x", 1000*i))}
		if i%2 == 0 {
			o.Expires = s.Now().Add(50 * 365 * 24 * time.Hour)
		}
		if _, err := s.PutObject(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	nonce, _, err := s.Nonce(ctx, 8453, account(50))
	if err != nil {
		t.Fatal(err)
	}
	for _, tx := range []ledger.Transaction{transaction(50, nonce, 1<<50), transaction(51, 7, 1<<50+1)} {
		if err := s.Record(ctx, tx, "request"); err != nil {
			t.Fatal(err)
		}
	}
}

// shown is all that a store shows of itself.
func shown(t *testing.T, s ledger.Store) string {
	t.Helper()
	snap := newSnapshot(t, s)
	wallets, err := s.Wallets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts, err := s.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reservations := map[string]ledger.Reservation{}
	err = s.EachReservation(t.Context(), func(r ledger.Reservation) error { reservations[r.Key.Hex()] = r; return nil })
	if err != nil {
		t.Fatal(err)
	}
	allowances := map[string]ledger.Allowance{}
	err = s.EachAllowance(t.Context(), func(a ledger.Allowance) error { allowances[a.Key.Hex()] = a; return nil })
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]ledger.Object{}
	err = s.EachObject(t.Context(), func(o ledger.Object) error { objects[o.Kind+" "+o.ID] = o; return nil })
	if err != nil {
		t.Fatal(err)
	}
	revoked := map[string]time.Time{}
	list, err := s.Revoked(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		revoked[r.ID] = r.Until.UTC()
	}
	b, err := json.Marshal([]any{snap.records, snap.entries, snap.anchors, wallets, counts, reservations, revoked, allowances, objects})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCopy(t *testing.T) {
	from, c := memory(t, 305)
	furnish(t, from)
	to := storetest.NewMemory(c.Now, false)
	last := map[ledger.CopyStep]ledger.CopyProgress{}
	o := ledger.CopyOptions{PageSize: 10, Progress: func(p ledger.CopyProgress) {
		if had := last[p.Step]; p.Done < had.Done {
			t.Errorf("%+v after %+v", p, had)
		}
		last[p.Step] = p
	}}
	r, err := ledger.Copy(t.Context(), from, to, o)
	if err != nil {
		t.Fatal(err)
	}
	snap := newSnapshot(t, from)
	if r.Payments != 305 || r.Copied != 305 || r.Wallets != 2 || r.Reservations != 25 || r.Revocations != 1 || r.Allowances != 9 || r.Objects != 11 || r.Anchors != int64(len(snap.anchors)) ||
		r.Audit.Found != 0 || r.Audit.Entries != int64(len(snap.entries)) {
		t.Errorf("report %+v", r)
	}
	if shown(t, from) != shown(t, to) {
		t.Error("the copy differs")
	}
	for _, step := range []ledger.CopyStep{ledger.CopyPayments, ledger.CopyCompare, ledger.CopyVerify} {
		if p := last[step]; p.Total == 0 || p.Done != p.Total {
			t.Errorf("%s ended with %+v", step, p)
		}
	}
	if err := to.Ping(t.Context()); err != nil {
		t.Errorf("the copy can't be used: %v", err)
	}
	// Again: there is nothing to do, and nothing is done.
	clear(last)
	if r, err = ledger.Copy(t.Context(), from, to, o); err != nil || r.Copied != 0 || r.Payments != 305 || r.Audit.Found != 0 {
		t.Errorf("again: %+v, %v", r, err)
	}
	// Once it is in use it is no copy any more.
	o.Progress = nil
	fill(t, to, c, 1000, 1)
	if _, err := ledger.Copy(t.Context(), from, to, o); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("into a store in use: %v, want ErrExists", err)
	}
	other := storetest.NewMemory(c.Now, false)
	fill(t, other, c, 2000, 1)
	if _, err := ledger.Copy(t.Context(), from, other, o); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("into a store with other payments: %v, want ErrExists", err)
	}
	empty := storetest.NewMemory(c.Now, false)
	if r, err := ledger.Copy(t.Context(), storetest.NewMemory(c.Now, false), empty, o); err != nil || r.Payments != 0 || empty.Ping(t.Context()) != nil {
		t.Errorf("of nothing: %+v, %v", r, err)
	}
}

var errCrash = errors.New("crash")

// crashing is a store whose process is killed after some calls that write. Of the last one it makes any part: that is all
// that is promised.
type crashing struct {
	ledger.Store
	left   int
	random *rand.Rand
}

func (c *crashing) Import(ctx context.Context, part ledger.Part) error {
	if c.left--; c.left > 0 {
		return c.Store.Import(ctx, part)
	}
	for _, r := range part.Records {
		if c.random.IntN(2) == 0 {
			if err := c.Store.Import(ctx, ledger.Part{Records: []ledger.Record{r}}); err != nil {
				return err
			}
		}
	}
	if c.random.IntN(2) == 0 {
		if err := c.Store.Import(ctx, part); err != nil {
			return err
		}
	}
	return errCrash
}

// A copy that crashes at any point, however often, and is begun again, with pages of any size, ends equal. Until then the
// destination can't be used.
func TestCopyCrashes(t *testing.T) {
	from, c := memory(t, 35)
	furnish(t, from)
	want, nothing := shown(t, from), shown(t, storetest.NewMemory(c.Now, false))
	rapid.Check(t, func(rt *rapid.T) {
		to := storetest.NewMemory(c.Now, false)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for tries := 0; ; tries++ {
			s := &crashing{Store: to, left: rapid.IntRange(1, 25).Draw(rt, "calls"), random: random}
			_, err := ledger.Copy(t.Context(), from, s, ledger.CopyOptions{PageSize: rapid.IntRange(1, 30).Draw(rt, "page")})
			if err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				rt.Fatalf("copy %d: %v", tries, err)
			}
			// Killed before it began, or right after it was completed, it may be ready.
			if to.Ping(t.Context()) == nil {
				if got := shown(t, to); got != want && got != nothing {
					rt.Fatal("half a copy can be used")
				}
			}
		}
		if got := shown(t, to); got != want {
			rt.Fatal("the copy differs")
		}
		if err := to.Ping(t.Context()); err != nil {
			rt.Fatal(err)
		}
	})
}

// changing is a source that is written to when it has been read some times.
type changing struct {
	ledger.Store
	reads  int
	change func()
}

func (c *changing) read() {
	if c.reads--; c.reads == 0 {
		c.change()
	}
}

func (c *changing) Records(ctx context.Context, after string, limit int) ([]ledger.Record, error) {
	c.read()
	return c.Store.Records(ctx, after, limit)
}

func (c *changing) Counts(ctx context.Context) (map[ledger.State]int64, error) {
	c.read()
	return c.Store.Counts(ctx)
}

func (c *changing) Wallets(ctx context.Context) ([]ledger.Wallet, error) {
	c.read()
	return c.Store.Wallets(ctx)
}

// A source that somebody writes to is noticed, whenever it is and whatever is written; the destination is not completed.
func TestCopyOfAChangingSource(t *testing.T) {
	for name, change := range map[string]func(m *storetest.Memory, c *clock) error{
		"an update": func(m *storetest.Memory, _ *clock) error {
			p, err := m.Payment(t.Context(), offer(9).ID)
			if err == nil {
				_, err = m.Update(t.Context(), p.ID, p.Version, ledger.Change{Event: ledger.EventVoid})
			}
			return err
		},
		"a hold": func(m *storetest.Memory, _ *clock) error {
			p, err := m.Payment(t.Context(), offer(9).ID)
			if err == nil {
				_, err = m.Update(t.Context(), p.ID, p.Version, ledger.Change{Event: ledger.EventExtend, Fence: 1, Hold: time.Hour})
			}
			return err
		},
		"a nonce": func(m *storetest.Memory, _ *clock) error {
			return m.AdvanceNonce(t.Context(), 8453, account(50), 1<<20)
		},
		"a wallet": func(m *storetest.Memory, _ *clock) error { return m.AdvanceNonce(t.Context(), 1, account(50), 0) },
		"a revocation": func(m *storetest.Memory, _ *clock) error {
			return m.Revoke(t.Context(), "pay_late", m.Now().Add(time.Hour))
		},
		"an allowance": func(m *storetest.Memory, _ *clock) error {
			_, _, err := m.Draw(t.Context(), ledger.Draw{Key: hash(1), Least: *uint256.NewInt(1), Limit: *uint256.NewInt(9), Until: m.Now().Add(time.Hour)})
			return err
		},
		"an object": func(m *storetest.Memory, _ *clock) error {
			_, err := m.PutObject(t.Context(), ledger.Object{Kind: "key", ID: "late", Body: []byte("{}")})
			return err
		},
		"a reservation": func(m *storetest.Memory, _ *clock) error {
			_, err := m.Reserve(t.Context(), ledger.Reservation{Key: hash(1)}, "", time.Hour)
			return err
		},
	} {
		for reads := 4; ; reads++ {
			m, c := memory(t, 21)
			to := storetest.NewMemory(c.Now, false)
			from := &changing{Store: m, reads: reads, change: func() {
				c.after(time.Second)
				if err := change(m, c); err != nil {
					t.Fatal(err)
				}
			}}
			_, err := ledger.Copy(t.Context(), from, to, ledger.CopyOptions{PageSize: 7})
			if from.reads > 0 { // it was not changed any more
				if err != nil || reads < 6 {
					t.Errorf("%s: %d reads, %v", name, reads-from.reads, err)
				}
				break
			}
			switch {
			case errors.Is(err, ledger.ErrConflict):
				if err := to.Ping(t.Context()); !errors.Is(err, ledger.ErrIncomplete) {
					t.Errorf("%s before read %d: the destination was completed: %v", name, reads, err)
				}
			case err != nil:
				t.Errorf("%s before read %d: %v", name, reads, err)
			case shown(t, m) != shown(t, to):
				t.Errorf("%s before read %d was not noticed", name, reads)
			}
		}
	}
}

// What another copy had begun is not gone on with.
func TestCopyIntoAnother(t *testing.T) {
	m, c := memory(t, 12)
	other, _ := memory(t, 13)
	to := storetest.NewMemory(c.Now, false)
	records, err := other.Records(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Payment.ID == offer(13).ID {
			if err := to.Import(t.Context(), ledger.Part{Records: []ledger.Record{r}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := ledger.Copy(t.Context(), m, to, ledger.CopyOptions{}); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("copy: %v, want ErrConflict", err)
	}
	if err := to.Ping(t.Context()); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("ping: %v, want ErrIncomplete", err)
	}
}

// A reservation that the source has not, or has otherwise, is noticed; one that ends is not missed.
func TestCopyComparesReservations(t *testing.T) {
	for name, tt := range map[string]struct {
		lasts time.Duration
		want  error
	}{"lasting": {time.Hour, ledger.ErrConflict}, "ending": {30 * time.Second, nil}} {
		m, c := memory(t, 12)
		to := storetest.NewMemory(c.Now, false)
		extra := ledger.Reservation{Key: hash(5), Payment: offer(3).ID, CreatedAt: c.now, ExpiresAt: c.now.Add(tt.lasts)}
		if err := to.Import(t.Context(), ledger.Part{Reservations: []ledger.Reservation{extra}}); err != nil {
			t.Fatal(err)
		}
		if _, err := ledger.Copy(t.Context(), m, to, ledger.CopyOptions{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	m, c := memory(t, 12)
	if _, err := m.Reserve(t.Context(), ledger.Reservation{Key: hash(1), Payment: offer(3).ID}, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	to := storetest.NewMemory(c.Now, false)
	if _, err := ledger.Copy(t.Context(), m, to, ledger.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := m.KeepAnswer(t.Context(), hash(1), offer(3).ID, []byte("late"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Copy(t.Context(), m, to, ledger.CopyOptions{}); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("an answer that came later: %v, want ErrExists", err)
	}
}

// A ledger that does not verify is not completed elsewhere: that would make the damage good.
func TestCopyOfADamagedSource(t *testing.T) {
	m, c := memory(t, 30)
	to := storetest.NewMemory(c.Now, false)
	damaged := &forging{Store: m}
	_, err := ledger.Copy(t.Context(), damaged, to, ledger.CopyOptions{})
	if !errors.Is(err, ledger.ErrAudit) {
		t.Errorf("copy: %v, want ErrAudit", err)
	}
	if err := to.Ping(t.Context()); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("the copy can be used: %v", err)
	}
}

// forging shows payments that are not as their trails say.
type forging struct{ ledger.Store }

func (f *forging) Records(ctx context.Context, after string, limit int) ([]ledger.Record, error) {
	page, err := f.Store.Records(ctx, after, limit)
	for i := range page {
		if i == 3 {
			page[i].Payment.Amount.AddUint64(&page[i].Payment.Amount, 1)
		}
	}
	return page, err
}
