package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// The database's clock dates what is written, whatever the instance believes.
func TestDatabaseClock(t *testing.T) {
	name := database(t)
	s := open(t, appURL(name), postgres.Options{})
	for _, wrong := range []time.Duration{0, time.Hour, -time.Hour, 5 * time.Second, -5 * time.Second} {
		before := one[int64](t, server.URL(name), "SELECT x402_clock()")
		s.Mishear(wrong)
		p := claim(t, s, 1)
		s.Mishear(wrong)
		q := update(t, s, p, ledger.Change{Event: ledger.EventExtend, Fence: p.Hold.Fence, Hold: time.Minute})
		s.Mishear(wrong)
		r, err := s.Reserve(t.Context(), ledger.Reservation{Key: p.Nonce, Payment: p.ID}, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		after := one[int64](t, server.URL(name), "SELECT x402_clock()")
		// A single statement may bring a time that is off by as much as one allows; ours was wrong by more.
		const slack = int64(postgres.Slack / time.Microsecond)
		for what, at := range map[string]time.Time{"claimed": p.CreatedAt, "changed": q.UpdatedAt, "reserved": r.CreatedAt} {
			if us := at.UnixMicro(); us < before-slack || us > after+slack || wrong != 0 && (us < before || us > after) {
				t.Errorf("off by %v: %s at %v, between %v and %v", wrong, what, at, time.UnixMicro(before), time.UnixMicro(after))
			}
		}
		if now := s.Now().UnixMicro(); now < after-slack || now > after+slack {
			t.Errorf("off by %v: now is %v, the database's is %v", wrong, s.Now(), time.UnixMicro(after))
		}
	}
}

// An entry that was dated before an anchor and is not committed when that is made does not come in below it: the anchor
// waits, and then is no longer right.
func TestAnchorWaitsForWriters(t *testing.T) {
	name := database(t)
	now := time.Now().Add(-time.Hour)
	s := open(t, appURL(name), postgres.Options{Now: func() time.Time { return now }})
	p := claim(t, s, 1)
	conn, err := pgx.Connect(t.Context(), server.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := now.Add(time.Millisecond).UnixMicro()
	if _, err := tx.Exec(t.Context(), `INSERT INTO audit SELECT payment_id, 2, $1, event, actor, reason, settlement, delivery, refund, hold_fence, hold_until,
		tx_hash, block_number, block_hash, plan_until, served_by, subject, previous, hash FROM audit WHERE payment_id = $2`, at, p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT x402_check($1, $2)", at, int64(1)<<62); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * ledger.AnchorLag)
	if a, err := ledger.NextAnchor(t.Context(), s, s.Now()); err == nil || promises(err) {
		t.Errorf("anchored %+v (%v) although a writer may still come in below", a, err)
	}
	// What read the entries before they were all there.
	early := blind{s, at}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err := ledger.NextAnchor(t.Context(), early, s.Now()); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("anchored %+v (%v) without an entry that is there", a, err)
	}
	if a, err := ledger.NextAnchor(t.Context(), s, s.Now()); err != nil || a.Count != 2 {
		t.Errorf("%+v, %v; want an anchor over 2 entries", a, err)
	}
}

// blind does not see entries from a time on.
type blind struct {
	*postgres.Store
	from int64
}

func (b blind) Entries(ctx context.Context, after ledger.Mark, _ time.Time, limit int) ([]ledger.Entry, error) {
	return b.Store.Entries(ctx, after, time.UnixMicro(b.from-1), limit)
}

// A first anchor over a ledger that has long gone without is made, and only once, although counting its entries takes long.
func TestAnchorOverMany(t *testing.T) {
	name := database(t)
	load(t, server.URL(name), 55_000)
	if err := server.Exec(t.Context(), name, "SET session_replication_role = replica; DELETE FROM anchors"); err != nil {
		t.Fatal(err)
	}
	s := open(t, appURL(name), postgres.Options{})
	a, err := ledger.NextAnchor(t.Context(), s, s.Now())
	if err != nil || a.Count < postgres.ManyEntries {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := s.AddAnchor(t.Context(), a); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("added again: %v", err)
	}
	claim(t, s, 1)
}
