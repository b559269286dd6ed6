package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// sizes are the numbers of payments in the ledgers to measure, from the environment.
func sizes(t testing.TB, standard ...int) []int {
	t.Helper()
	text := os.Getenv("LEDGER_SIZES")
	if text == "" {
		return standard
	}
	var got []int
	for one := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(one))
		if err != nil || n < 0 {
			t.Fatalf("LEDGER_SIZES: %q is no number of payments", one)
		}
		got = append(got, n)
	}
	return got
}

// loadPayments and loadEntries make what payments have that came in one a second until now, of a payer for every hundred:
// nearly all were delivered long ago, a few are open, wait for a refund, or bought a plan; of some the trail is archived.
const (
	loadPayments = `INSERT INTO payments SELECT
		'pay_' || translate(substr(encode(sha256(int8send(i)), 'hex'), 1, 28), '01', 'yz'), 4, 8453, '\x01'::bytea || decode(repeat('00', 19), 'hex'),
		substr(sha256(int8send(i / 100)), 1, 20), sha256(int8send(-i)), '\x02'::bytea || decode(repeat('00', 19), 'hex'),
		'10000', 1900000000, sha256(int8send(i)), 'weather', CASE WHEN plan THEN 'month' ELSE '' END, 'GET', 'api.example.com', '/weather/today?number=' || i,
		'upfront', i, 'settled', CASE WHEN open OR refund THEN 'undelivered' ELSE 'delivered' END, CASE WHEN refund THEN 'pending' ELSE 'none' END, '',
		sha256(int8send(i)), i, sha256(int8send(i)), CASE WHEN open THEN 0 ELSE 1 END, 1, 0, CASE WHEN plan THEN made + 2592000000000 ELSE 0 END,
		'', made, made + 2000000, made + 1000000, made + 2000000,
		CASE WHEN refund THEN 'REFUND_PENDING' WHEN open THEN 'PAID' ELSE 'DELIVERED' END, open::int, (open AND NOT refund)::int, (NOT open AND NOT refund)::int,
		sha256(int8send(i)), made, archived::int
		FROM (SELECT i, $1::bigint - ($2::bigint - i) * 1000000 AS made, i %% 1000 = 0 AS open, i %% 5000 = 1 AS refund, i %% 100 = 2 AS plan, i %% 4 = 3 AS archived
			FROM generate_series(%d::bigint, %d) i) AS one`
	loadEntries = `INSERT INTO %s SELECT id, v, created_at + v * 500000, CASE v WHEN 1 THEN 'claim' ELSE 'settle' END, 'request', '',
		'settled', 'none', 'none', 1, 0, tx_hash, block_number, block_hash, 0, '', header_hash, header_hash, header_hash
		FROM payments, generate_series(1, 2) v WHERE is_archived = %d`
	// A transaction carries four payments, one of which is told of here.
	loadTransactions = `INSERT INTO transactions (chain_id, hash, wallet, nonce, raw, carries, created_at)
		SELECT 8453, tx_hash, '\x01'::bytea || decode(repeat('00', 19), 'hex'), block_number / 4, CASE is_archived WHEN 1 THEN '' ELSE decode(repeat('ab', 400), 'hex') END,
			id, created_at FROM payments WHERE block_number %% 4 = 3;
		INSERT INTO transaction_payments (payment_id, seq, chain_id, hash, position) SELECT id, 0, 8453, tx_hash, 0 FROM payments WHERE block_number %% 4 = 3;
		INSERT INTO transaction_archive (chain_id, hash, raw) SELECT 8453, tx_hash, decode(repeat('ab', 400), 'hex') FROM payments WHERE is_archived = 1;
		INSERT INTO wallets (chain_id, address, next_nonce) SELECT 8453, substr(sha256(int8send(i)), 1, 20), i FROM generate_series(1, 10) i;
		INSERT INTO reservations (key, fingerprint, payment_id, answer, created_at, expires_at)
			SELECT nonce, nonce, id, NULL, created_at, created_at + 86400000000 FROM payments WHERE block_number > %d;
		INSERT INTO anchors SELECT i, i, i, '\x01', '\x02', '\x03' FROM generate_series(1, 1000) i`
)

// load fills an empty ledger with n payments. Constraints and indexes are made when the rows are there, which takes
// a fraction of the time.
func load(t testing.TB, url string, n int) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	exec := func(statement string, args ...any) {
		t.Helper()
		began := time.Now()
		if _, err := conn.Exec(ctx, statement, args...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Logf("%v: %.80s", took.Round(time.Second), strings.Join(strings.Fields(statement), " "))
		}
	}
	exec("SET session_replication_role = replica")
	exec("SET maintenance_work_mem = '512MB'")
	drop, restore, err := structure(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range drop {
		exec(statement)
	}
	exec("BEGIN")
	exec("TRUNCATE payments, audit, audit_archive") // what is filled in the transaction that emptied it needs no log
	now := time.Now().UnixMicro()
	const slice = 1_000_000
	for from := 1; from <= n; from += slice {
		exec(fmt.Sprintf(loadPayments, from, min(n, from+slice-1)), now, n)
	}
	exec(fmt.Sprintf(loadEntries, "audit", 0))
	exec(fmt.Sprintf(loadEntries, "audit_archive", 1))
	exec("COMMIT")
	for statement := range strings.SplitSeq(fmt.Sprintf(loadTransactions, n-min(n, 100_000)), ";") {
		exec(statement)
	}
	for _, statement := range restore {
		exec(statement)
	}
	exec("VACUUM ANALYZE")
}

// structure gives what removes the constraints and indexes of the big tables, and what makes them again.
func structure(ctx context.Context, conn *pgx.Conn) (drop, restore []string, err error) {
	rows, err := conn.Query(ctx, `
		SELECT 1, format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
			format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) || CASE contype WHEN 'f' THEN ' NOT VALID' ELSE '' END,
			CASE contype WHEN 'f' THEN 1 ELSE 2 END AS step
		FROM pg_constraint WHERE contype = 'f' AND confrelid IN ('payments'::regclass)
			OR contype IN ('p', 'u') AND conrelid IN ('payments'::regclass, 'audit'::regclass, 'audit_archive'::regclass)
		UNION ALL SELECT 2, format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid), 3
		FROM pg_index WHERE indrelid IN ('payments'::regclass, 'audit'::regclass, 'audit_archive'::regclass)
			AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)
		ORDER BY step`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind, step int
		var away, back string
		if err := rows.Scan(&kind, &away, &back, &step); err != nil {
			return nil, nil, err
		}
		drop, restore = append(drop, away), append([]string{back}, restore...)
	}
	return drop, restore, errors.Join(rows.Err())
}
