package sqlite_test

import (
	"cmp"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// sizes are the numbers of payments that ledgers have before they are measured: LEDGER_SIZES, or some that are loaded in
// seconds.
func sizes(b *testing.B) []int {
	b.Helper()
	list, ok := os.LookupEnv("LEDGER_SIZES")
	if !ok {
		list = "1000,100000"
	}
	var all []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			b.Fatalf("LEDGER_SIZES: %v", err)
		}
		all = append(all, n)
	}
	return all
}

// perPayer is how many payments each payer of a loaded ledger has.
const perPayer = 100

// load makes a ledger of n payments that were claimed during the last month: the rows that Claim would have written, in
// the order in which the tables keep them, and with the indexes made at the end.
func load(tb testing.TB, path string, n int) {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), path, sqlite.Options{})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		tb.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	err = errors.Join(fill(db, n), db.Close())
	if err != nil {
		tb.Fatalf("loading: %v", err)
	}
}

// What is loaded is a ledger like any other.
func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	load(t, path, 1234)
	s := open(t, path, sqlite.Options{})
	after, n := "", 0
	for {
		page, err := s.Records(t.Context(), after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			if err := ledger.VerifyAudit(&r.Payment, r.Trail); err != nil {
				t.Fatal(err)
			}
			after = r.Payment.ID
		}
		if n += len(page); len(page) < 100 {
			break
		}
	}
	if n != 1234 {
		t.Errorf("%d payments, want 1234", n)
	}
	if a, err := ledger.NextAnchor(t.Context(), s, s.Now()); err != nil || a.Count != 1234 {
		t.Errorf("anchor %+v, %v", a, err)
	}
	if due, err := s.Lease(t.Context(), 5, time.Minute); err != nil || len(due) != 5 {
		t.Errorf("due: %+v, %v", due, err)
	}
	for _, what := range []string{"PRAGMA integrity_check", "PRAGMA foreign_key_check"} {
		if got, err := s.Ask(what); err != nil || got != "" && got != "ok" {
			t.Errorf("%s: %s, %v", what, got, err)
		}
	}
	if plan, err := s.Plan(sqlstore.SelectDue); err != nil || !strings.Contains(plan, "payments_due") {
		t.Errorf("its indexes are missing: %s, %v", plan, err)
	}
}

func fill(db *sql.DB, n int) error {
	for _, pragma := range []string{"journal_mode = OFF", "synchronous = OFF", "cache_size = -524288", "locking_mode = EXCLUSIVE"} {
		if _, err := db.Exec("PRAGMA " + pragma); err != nil {
			return err
		}
	}
	again, err := dropIndexes(db)
	if err != nil {
		return err
	}
	if err := insert(db, n); err != nil {
		return err
	}
	for _, index := range again {
		if _, err := db.Exec(index); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	return nil
}

// dropIndexes drops all that the schema names, and gives the statements that make them again.
func dropIndexes(db *sql.DB) (again []string, err error) {
	rows, err := db.Query(`SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	var names []string
	for rows.Next() {
		var name, statement string
		if err := rows.Scan(&name, &statement); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		names, again = append(names, name), append(again, statement)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, err := db.Exec("DROP INDEX " + name); err != nil {
			return nil, err
		}
	}
	return again, nil
}

// shards are payers, in the order of the ids of their payments.
func shards(n int) []common.Address {
	type payer struct {
		shard   string
		address common.Address
	}
	all := make([]payer, n)
	for i := range all {
		_, _ = rand.Read(all[i].address[:]) // it never fails
		all[i].shard = ledger.Shard(all[i].address)
	}
	slices.SortFunc(all, func(a, b payer) int { return cmp.Compare(a.shard, b.shard) })
	got := make([]common.Address, n)
	for i := range all {
		got[i] = all[i].address
	}
	return got
}

// row is a payment as it is stored, with its only entry.
type row struct{ payment, entry []any }

// insert makes rows and writes them, at the same time.
func insert(db *sql.DB, n int) error {
	m := &maker{n: n, begin: time.Now().Add(-month - time.Hour), step: month / time.Duration(n)}
	batches := make(chan []row, 4)
	var made error
	go func() {
		defer close(batches)
		for payers := range slices.Chunk(shards(n/perPayer+1), 100) {
			var rows []row
			if rows, made = m.rows(payers); made != nil {
				return
			}
			batches <- rows
		}
	}()
	var written error
	for rows := range batches {
		if written == nil {
			written = insertRows(db, rows)
		}
	}
	return errors.Join(made, written)
}

func insertRows(db *sql.DB, rows []row) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	payment, err := tx.Prepare(sqlstore.InsertPayment)
	if err != nil {
		return err
	}
	entry, err := tx.Prepare(sqlstore.InsertEntry)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := payment.Exec(r.payment...); err != nil {
			return err
		}
		if _, err := entry.Exec(r.entry...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// maker makes n payments.
type maker struct {
	n, done int
	begin   time.Time
	step    time.Duration
}

// rows are what the payers bought, in the order of their ids, which is that of their shards.
func (m *maker) rows(payers []common.Address) ([]row, error) {
	var payments []ledger.Payment
	for range perPayer {
		for _, payer := range payers {
			if m.done == m.n {
				break
			}
			m.done++
			p, err := paymentOf(payer)
			if err != nil {
				return nil, err
			}
			payments = append(payments, p)
		}
	}
	slices.SortFunc(payments, func(a, b ledger.Payment) int { return cmp.Compare(a.ID, b.ID) })
	rows := make([]row, 0, len(payments))
	for _, p := range payments {
		var turn [8]byte
		_, _ = rand.Read(turn[:]) // it never fails
		at := m.begin.Add(m.step * time.Duration(binary.BigEndian.Uint64(turn[:])%uint64(m.n)))
		p, e, err := ledger.Create(p, ledger.Change{Actor: "request"}, at)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{sqlstore.PaymentValues(&p, e.Hash), sqlstore.EntryValues(&e)})
	}
	return rows, nil
}
