package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// lived is a ledger that has something of everything: payments that are open, closed and archived, transactions, anchors.
func lived(t *testing.T, name string) (s *postgres.Store, archived ledger.Payment) {
	t.Helper()
	ctx := t.Context()
	now := time.Now().Add(-2 * time.Hour)
	s = open(t, appURL(name), postgres.Options{Now: func() time.Time { return now }})
	var all []ledger.Payment
	for i := range uint64(3) {
		p := claim(t, s, i)
		if err := s.Record(ctx, transaction(p), "request"); err != nil {
			t.Fatal(err)
		}
		p.Version++
		all = append(all, update(t, s, p, ledger.Change{Event: ledger.EventSettle}, ledger.Change{Event: ledger.EventDeliver, Fence: p.Hold.Fence, Hold: time.Minute},
			ledger.Change{Event: ledger.EventDelivered, Fence: p.Hold.Fence}))
	}
	archived = update(t, s, all[0], ledger.Change{Event: ledger.EventFinal})
	now = now.Add(time.Hour)
	if n, err := s.Sweep(ctx, time.Minute, 10); n != 1 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	update(t, s, all[1], ledger.Change{Event: ledger.EventFinal})
	if _, err := ledger.NextAnchor(ctx, s, s.Now()); err != nil {
		t.Fatal(err)
	}
	if one[int](t, server.URL(name), "SELECT count(*) FROM audit_archive") == 0 ||
		one[int](t, server.URL(name), "SELECT count(*) FROM transaction_archive") == 0 {
		t.Fatal("nothing was archived")
	}
	return s, archived
}

// forbidden is what nobody may do: neither the application, whose role lacks the rights, nor the owner of the tables, whom
// triggers stop.
var forbidden = []string{
	"UPDATE audit SET reason = 'x'",
	"UPDATE audit SET reason = reason WHERE false",
	"DELETE FROM audit",
	"TRUNCATE audit",
	"UPDATE audit_archive SET reason = 'x'",
	"DELETE FROM audit_archive",
	"TRUNCATE audit_archive",
	"INSERT INTO audit_archive SELECT payment_id, version + 100, at, event, actor, reason, settlement, delivery, refund, hold_fence, hold_until, " +
		"tx_hash, block_number, block_hash, plan_until, served_by, subject, previous, hash FROM audit",
	// of a payment that is not closed
	"INSERT INTO audit_archive SELECT audit.* FROM audit JOIN payments ON id = payment_id WHERE is_closed = 0",
	// changed on its way
	"INSERT INTO audit_archive SELECT payment_id, version, at, event, actor, 'x', settlement, delivery, refund, hold_fence, hold_until, " +
		"tx_hash, block_number, block_hash, plan_until, served_by, subject, previous, hash FROM audit WHERE payment_id IN (SELECT id FROM payments WHERE is_closed = 1)",
	// an archive of one's own making, before the real one
	"CREATE TEMP TABLE audit_archive AS SELECT * FROM audit; DELETE FROM public.audit",
	"UPDATE anchors SET entries = ''",
	"DELETE FROM anchors",
	"TRUNCATE anchors",
	"DELETE FROM payments",
	"TRUNCATE payments CASCADE",
	"UPDATE payments SET amount = '1'",
	"UPDATE payments SET payer = nonce",
	"UPDATE payments SET id = id || 'x'",
	"DELETE FROM wallets",
	"TRUNCATE wallets",
	"UPDATE wallets SET next_nonce = next_nonce - 1",
	"UPDATE transactions SET raw = ''::bytea",
	"UPDATE transactions SET raw = '\\x01'",
	"UPDATE transactions SET hash = hash || hash",
	"DELETE FROM transactions",
	"TRUNCATE transactions CASCADE",
	"DELETE FROM transaction_payments",
	"UPDATE transaction_payments SET position = position + 7",
	"TRUNCATE transaction_payments",
	"DELETE FROM transaction_archive",
	"UPDATE transaction_archive SET raw = '\\x02'",
	"INSERT INTO transaction_archive SELECT chain_id, hash, '\\x03' FROM transactions ON CONFLICT DO NOTHING",
}

// forbiddenToTheApplication is what an owner could do to have its way in the end.
var forbiddenToTheApplication = []string{
	"ALTER TABLE audit DISABLE TRIGGER ALL",
	"DROP TRIGGER audit_no_delete ON audit",
	"DROP TABLE audit CASCADE",
	"ALTER TABLE audit ADD COLUMN x int",
	"CREATE OR REPLACE FUNCTION x402_archived_entry() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
	"SET session_replication_role = replica",
	"CREATE TRIGGER aaa BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION x402_refuse()",
	"INSERT INTO audit_archive SELECT * FROM audit",
	"UPDATE ledger_schema SET version_id = 1",
}

func TestTheTrailOnlyGrows(t *testing.T) {
	name := database(t)
	s, archived := lived(t, name)
	before := contents(t, s)
	for role, url := range map[string]string{"the application": appURL(name), "the owner": ownerURL(name)} {
		statements := forbidden
		if role == "the application" {
			statements = append(statements, forbiddenToTheApplication...)
		}
		for _, statement := range statements {
			err := refused(t, url, statement)
			if err == nil {
				t.Errorf("%s may %s", role, statement)
			} else if !strings.Contains(err.Error(), "42501") {
				t.Errorf("%s: %s fails for another reason: %v", role, statement, err)
			}
		}
	}
	if after := contents(t, s); after != before {
		t.Errorf("the ledger was\n%s\nand is\n%s", before, after)
	}
	trail, err := s.Audit(t.Context(), archived.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.VerifyAudit(&archived, trail); err != nil {
		t.Error(err)
	}
}

// refused runs statements on a new connection in one transaction, which it undoes.
func refused(t *testing.T, url, statements string) error {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	_, err = conn.PgConn().Exec(context.Background(), statements).ReadAll()
	return err
}

// contents is all that must not change.
func contents(t *testing.T, s *postgres.Store) string {
	t.Helper()
	var got string
	err := s.Pool().QueryRow(t.Context(), `SELECT concat_ws(' ',
		(SELECT md5(string_agg(a::text, ',' ORDER BY payment_id, version)) FROM audit a),
		(SELECT md5(string_agg(a::text, ',' ORDER BY payment_id, version)) FROM audit_archive a),
		(SELECT md5(string_agg(a::text, ',' ORDER BY sequence)) FROM anchors a),
		(SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM payments p),
		(SELECT md5(string_agg(t::text, ',' ORDER BY hash)) FROM transactions t),
		(SELECT md5(string_agg(t::text, ',' ORDER BY payment_id, seq)) FROM transaction_payments t),
		(SELECT md5(string_agg(t::text, ',' ORDER BY hash)) FROM transaction_archive t),
		(SELECT md5(string_agg(w::text, ',' ORDER BY address)) FROM wallets w))`).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The function that moves to the archive, which runs with the owner's rights, moves nothing but what is closed and has not
// changed for as long as it is told, as it is.
func TestTheArchiveTakesOnlyWhatIsClosed(t *testing.T) {
	name := database(t)
	s, _ := lived(t, name)
	open := one[string](t, server.URL(name), "SELECT id FROM payments WHERE is_closed = 0")
	closed := one[string](t, server.URL(name), "SELECT id FROM payments WHERE is_closed = 1 AND is_archived = 0")
	trail := func(id string) []ledger.Entry {
		got, err := s.Audit(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	before := trail(closed)
	for since, want := range map[int64]int{0: 0, 1 << 62: 1} {
		if n := one[int](t, appURL(name), "SELECT x402_archive($1, 100)", since); n != want {
			t.Errorf("archived %d that have not changed since %d, want %d", n, since, want)
		}
		if since == 0 {
			continue
		}
		if n := one[int](t, server.URL(name), "SELECT count(*) FROM audit_archive WHERE payment_id = $1", open); n != 0 {
			t.Errorf("%d entries of an open payment are in the archive", n)
		}
		if n := one[int](t, server.URL(name), "SELECT count(*) FROM audit WHERE payment_id = $1", closed); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	}
	after := trail(closed)
	if len(after) != len(before) || after[len(after)-1].Hash != before[len(before)-1].Hash {
		t.Errorf("the trail was %+v and is %+v", before, after)
	}
	if txs, err := s.Transactions(t.Context(), closed); err != nil || len(txs) != 1 || len(txs[0].Raw) != 400 || txs[0].Wallet == (common.Address{}) {
		t.Errorf("transactions %+v, %v", txs, err)
	}
}
