package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// versions is where goose keeps which migrations were made: not in its usual table, which an application in
	// the same database may use.
	versions = "ledger_schema"
	// migrationLock is the key of the advisory lock of all that changes tables.
	migrationLock = 40201

	codeNoTable = "42P01"
	codeDenied  = "42501"
)

// migrate makes the tables what this version needs, as their owner.
func migrate(ctx context.Context, app *pgxpool.Config, o Options) error {
	owner := app.ConnConfig.Copy()
	if o.MigrateURL != "" {
		var err error
		if owner, err = pgx.ParseConfig(o.MigrateURL); err != nil {
			return unreadable(o.MigrateURL, err)
		}
		prepareConfig(owner, o)
	}
	db := stdlib.OpenDB(*owner)
	defer db.Close()
	if err := migrateAs(ctx, db, o); err != nil {
		return err
	}
	if o.MigrateURL == "" || owner.User == app.ConnConfig.User {
		return nil
	}
	return grant(ctx, db, app.ConnConfig.User)
}

func migrateAs(ctx context.Context, db *sql.DB, o Options) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if files, err = sqlstore.Migrations(files); err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true),
		goose.WithTableName(versions), goose.WithSessionLocker(locker{}))
	if err != nil {
		return fmt.Errorf("ledger/postgres: preparing the tables: %w", err)
	}
	sources := p.ListSources()
	want := sources[len(sources)-1].Version
	have, err := version(ctx, db)
	switch {
	case err != nil:
		return unusable(ctx, err, o)
	case have > want:
		return fmt.Errorf("%w: its schema has version %d, this program knows %d: use a newer program", ErrSchema, have, want)
	case have == want:
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return unusable(ctx, err, o)
	}
	return nil
}

// version is that of the last migration that was made; 0: none.
func version(ctx context.Context, db *sql.DB) (have int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT COALESCE(max(version_id), 0) FROM "+versions).Scan(&have)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == codeNoTable {
		return 0, nil
	}
	return have, err
}

func unusable(ctx context.Context, err error, o Options) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == codeDenied && o.MigrateURL == "" {
		return fmt.Errorf("ledger/postgres: the tables must be made or changed by another role, their owner: give its URL as migrate_url: %w", err)
	}
	return opaque("preparing the tables", err)
}

// locker lets one program at a time change the tables. Goose's own asks again every second; this one waits in the
// database's queue, so that many instances start in the time that each needs.
type locker struct{}

// SessionLock implements lock.SessionLocker.
func (locker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock))
	return err
}

// SessionUnlock implements lock.SessionLocker.
func (locker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", int64(migrationLock))
	return err
}

// rights are what the application's role needs. It can neither change nor remove an entry of the audit trail, an anchor or a
// transaction, nor remove a payment; the archive it reaches through x402_archive alone.
var rights = []string{
	"SELECT ON payments, audit, audit_archive, anchors, wallets, transactions, transaction_archive, transaction_payments, reservations, meta, heartbeat, " + versions,
	"INSERT ON payments, audit, anchors, wallets, transactions, transaction_payments, reservations, meta, heartbeat",
	`UPDATE (version, settlement, delivery, refund, reason, tx_hash, block_number, block_hash, is_final, hold_fence, hold_until, plan_until,
		served_by, created_at, updated_at, settled_at, delivered_at, state, is_open, is_unserved, is_closed, audit_hash, check_at, is_archived)
		ON payments`,
	"UPDATE (next_nonce) ON wallets",
	"UPDATE (at) ON heartbeat",
	"UPDATE, DELETE ON reservations",
	"DELETE ON meta",
	"EXECUTE ON FUNCTION x402_archive(bigint, bigint)",
}

// grant gives the role of the application its rights, and those of the schema that the tables are in.
func grant(ctx context.Context, db *sql.DB, role string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("ledger/postgres: granting rights: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	// Two that grant the same at once would make one of them fail.
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
		return fmt.Errorf("ledger/postgres: granting rights: %w", err)
	}
	var schema string
	if err := tx.QueryRowContext(ctx, "SELECT current_schema()").Scan(&schema); err != nil {
		return fmt.Errorf("ledger/postgres: granting rights: %w", err)
	}
	to := " TO " + pgx.Identifier{role}.Sanitize()
	for _, right := range append([]string{"USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize()}, rights...) {
		if _, err := tx.ExecContext(ctx, "GRANT "+right+to); err != nil {
			return fmt.Errorf("ledger/postgres: granting rights%s: %w", to, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("ledger/postgres: granting rights: %w", err)
	}
	return nil
}
