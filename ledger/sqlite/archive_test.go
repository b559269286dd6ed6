package sqlite_test

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

const month = 30 * 24 * time.Hour

// hands is a clock that only the test moves.
type hands struct{ micros atomic.Int64 }

func newHands() *hands {
	h := &hands{}
	h.micros.Store(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC).UnixMicro())
	return h
}

func (h *hands) now() time.Time      { return time.UnixMicro(h.micros.Load()) }
func (h *hands) add(d time.Duration) { h.micros.Add(d.Microseconds()) }

func openAt(t *testing.T, path string, h *hands) *sqlite.Store {
	t.Helper()
	return open(t, path, sqlite.Options{Now: h.now})
}

func mustUpdate(t *testing.T, s *sqlite.Store, p ledger.Payment, changes ...ledger.Change) ledger.Payment {
	t.Helper()
	p, err := s.Update(t.Context(), p.ID, p.Version, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustSweep(t *testing.T, s *sqlite.Store, want int) {
	t.Helper()
	if n, err := s.Sweep(t.Context(), month, 100); err != nil || n != want {
		t.Fatalf("swept %d, %v, want %d", n, err, want)
	}
}

// wantCounts compares those of the rows that the trails and the raw transactions have.
func wantCounts(t *testing.T, s *sqlite.Store, want string) {
	t.Helper()
	got, err := s.Ask(`SELECT count(*) || ' entries, ' || (SELECT count(*) FROM audit_archive) || ' archived; '
		|| (SELECT sum(length(raw)) FROM transactions) || ' bytes, '
		|| (SELECT COALESCE(sum(length(raw)), 0) FROM transaction_archive) || ' archived' FROM audit`)
	if err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func records(t *testing.T, s *sqlite.Store) []ledger.Record {
	t.Helper()
	got, err := s.Records(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if err := ledger.VerifyAudit(&got[i].Payment, got[i].Trail); err != nil {
			t.Error(err)
		}
	}
	return got
}

// The trail of a closed payment goes to the archive, and a transaction with the last of its payments; who reads sees no
// difference.
func TestArchive(t *testing.T) {
	h := newHands()
	s := openAt(t, filepath.Join(t.TempDir(), "ledger.db"), h)
	a, b := mustClaim(t, s), mustClaim(t, s)
	tx := newTransaction(a)
	tx.Payments = append(tx.Payments, b.ID)
	if err := s.Record(t.Context(), tx, "request"); err != nil {
		t.Fatal(err)
	}
	final := []ledger.Change{{Event: ledger.EventFail, Reason: "reverted"}, {Event: ledger.EventFinal}}
	a.Version++
	a = mustUpdate(t, s, a, final...)
	h.add(month)
	wantCounts(t, s, "6 entries, 0 archived; 400 bytes, 0 archived")
	before := records(t, s)

	mustSweep(t, s, 1)
	wantCounts(t, s, "2 entries, 4 archived; 400 bytes, 0 archived")
	mustSweep(t, s, 0)
	if got := records(t, s); !reflect.DeepEqual(got, before) {
		t.Errorf("after the first sweep %+v, want %+v", got, before)
	}

	b.Version++
	mustUpdate(t, s, b, final...)
	before = records(t, s)
	mustSweep(t, s, 0) // it has just changed
	h.add(month)
	mustSweep(t, s, 1)
	wantCounts(t, s, "0 entries, 8 archived; 0 bytes, 400 archived")
	if got := records(t, s); !reflect.DeepEqual(got, before) {
		t.Errorf("after the second sweep %+v, want %+v", got, before)
	}
	if got, err := s.Transactions(t.Context(), a.ID); err != nil || !reflect.DeepEqual(got, before[0].Transactions) {
		t.Errorf("transactions %+v, %v, want %+v", got, err, before[0].Transactions)
	}
	if err := s.Record(t.Context(), tx, "request"); err != nil {
		t.Errorf("recorded again: %v", err)
	}
}

// A payment whose trail is in the archive can still change; its trail is then in both places, until the next sweep.
func TestArchivedPaymentChanges(t *testing.T) {
	h := newHands()
	s := openAt(t, filepath.Join(t.TempDir(), "ledger.db"), h)
	p := mustClaim(t, s)
	if err := s.Record(t.Context(), newTransaction(p), "request"); err != nil {
		t.Fatal(err)
	}
	p.Version++
	p = mustUpdate(t, s, p, ledger.Change{Event: ledger.EventFail}, ledger.Change{Event: ledger.EventFinal})
	h.add(month)
	mustSweep(t, s, 1)
	p = mustUpdate(t, s, p, ledger.Change{Event: ledger.EventSettle, Transaction: common.Hash{1}, Block: 7})
	wantCounts(t, s, "1 entries, 4 archived; 0 bytes, 400 archived")
	h.add(month)
	mustSweep(t, s, 0) // it is to be refunded
	trail, err := s.Audit(t.Context(), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.VerifyAudit(&p, trail); err != nil {
		t.Error(err)
	}
	if due, err := s.Lease(t.Context(), 10, time.Minute); err != nil || len(due) != 1 || due[0] != p {
		t.Errorf("due: %+v, %v, want %+v", due, err, p)
	}
	mustUpdate(t, s, p, ledger.Change{Event: ledger.EventRefunded}, ledger.Change{Event: ledger.EventFinal})
	h.add(month)
	mustSweep(t, s, 1)
	wantCounts(t, s, "0 entries, 7 archived; 0 bytes, 400 archived")
	records(t, s)
}

// Not even who has the connection can change the trail, forget a payment, make it another's or deliver and
// refund it; and what leaves for the archive must have arrived there as it was.
func TestAppendOnly(t *testing.T) {
	h := newHands()
	s := openAt(t, filepath.Join(t.TempDir(), "ledger.db"), h)
	for range 2 {
		p := mustClaim(t, s)
		if err := s.Record(t.Context(), newTransaction(p), "request"); err != nil {
			t.Fatal(err)
		}
		p.Version++
		mustUpdate(t, s, p, ledger.Change{Event: ledger.EventFail}, ledger.Change{Event: ledger.EventFinal})
	}
	h.add(month)
	if n, err := s.Sweep(t.Context(), month, 1); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if _, err := ledger.NextAnchor(t.Context(), s, s.Now()); err != nil {
		t.Fatal(err)
	}
	before := records(t, s)
	for _, statement := range []string{
		"UPDATE audit SET actor = 'x'",
		"DELETE FROM audit",
		"REPLACE INTO audit SELECT * FROM audit",
		"UPDATE audit_archive SET actor = 'x'",
		"DELETE FROM audit_archive",
		"REPLACE INTO audit_archive SELECT * FROM audit_archive",
		"DELETE FROM payments",
		"REPLACE INTO payments SELECT * FROM payments",
		"UPDATE payments SET id = 'x'",
		"UPDATE payments SET payer = x'00'",
		"UPDATE payments SET amount = '0'",
		"UPDATE payments SET delivery = 'delivered', refund = 'pending'",
		"UPDATE anchors SET entry_count = 0",
		"DELETE FROM anchors",
		"REPLACE INTO anchors SELECT * FROM anchors",
		"UPDATE transactions SET raw = x''",
		"UPDATE transactions SET raw = x'00' WHERE raw = x''",
		"UPDATE transactions SET nonce = 7",
		"DELETE FROM transactions",
		"UPDATE transaction_archive SET raw = x''",
		"DELETE FROM transaction_archive",
	} {
		if err := s.Exec(statement); err == nil {
			t.Errorf("%s was done", statement)
		}
	}
	for _, column := range []string{
		"id", "chain_id", "asset", "payer", "nonce", "pay_to", "amount", "valid_before", "header_hash", "route", "plan", "method",
		"host", "uri", "flow", "claim_block",
	} {
		if err := s.Exec("UPDATE payments SET " + column + " = " + column); err == nil || !strings.Contains(err.Error(), "never changes") {
			t.Errorf("a payment's %s was changed: %v", column, err)
		}
	}
	if got := records(t, s); !reflect.DeepEqual(got, before) {
		t.Errorf("%+v, want %+v", got, before)
	}
	for _, column := range []string{
		"at", "event", "actor", "reason", "settlement", "delivery", "refund", "hold_fence", "hold_until", "tx_hash",
		"block_number", "block_hash", "plan_until", "served_by", "subject", "previous", "hash",
	} {
		if err := s.ArchiveOtherwise(column); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("entries were deleted whose %s in the archive differs: %v", column, err)
		}
	}
	mustSweep(t, s, 1)
}

// What is anchored stays as it is, whatever the machine's clock says and whoever writes.
func TestClockAboveAnchors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	h := newHands()
	s, other := openAt(t, path, h), openAt(t, path, h)
	mustClaim(t, s)
	h.add(time.Hour)
	a, err := ledger.NextAnchor(t.Context(), s, s.Now())
	if err != nil {
		t.Fatal(err)
	}
	h.add(-48 * time.Hour)
	for name, store := range map[string]*sqlite.Store{"the same": s, "another on the file": other, "one opened later": openAt(t, path, h)} {
		if p := mustClaim(t, store); !p.CreatedAt.After(a.Until) {
			t.Errorf("%s: created at %v, not after the anchor's %v", name, p.CreatedAt, a.Until)
		}
		if now := store.Now(); !now.After(a.Until) {
			t.Errorf("%s: it is %v, not after the anchor's %v", name, now, a.Until)
		}
	}
}

// hiding is a view of the books that lacks the newest entry, as it was not committed yet.
type hiding struct{ ledger.Books }

func (b hiding) Entries(ctx context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	got, err := b.Books.Entries(ctx, after, until, limit)
	return got[:len(got)-1], err
}

// An entry that came in while an anchor was made is not left out by it.
func TestAnchorOfAllEntries(t *testing.T) {
	h := newHands()
	s := openAt(t, filepath.Join(t.TempDir(), "ledger.db"), h)
	mustClaim(t, s)
	mustClaim(t, s)
	h.add(time.Hour)
	if a, err := ledger.NextAnchor(t.Context(), hiding{s}, s.Now()); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("an anchor of one of two entries: %+v, %v", a, err)
	}
	if a, err := ledger.NextAnchor(t.Context(), s, s.Now()); err != nil || a.Count != 2 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A copy that one process makes is known to others at once.
func TestIncompleteElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, other := open(t, path, sqlite.Options{}), open(t, path, sqlite.Options{})
	if err := other.Import(t.Context(), ledger.Part{}); err != nil {
		t.Fatal(err)
	}
	p, err := newPayment(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), p, ledger.Change{}); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("claim: %v", err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("ping: %v", err)
	}
	if err := s.Import(t.Context(), ledger.Part{Complete: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Claim(t.Context(), p, ledger.Change{}); err != nil {
		t.Errorf("claim after the copy: %v", err)
	}
}
