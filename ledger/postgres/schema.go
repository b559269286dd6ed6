package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

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

// prepare makes the tables what this version needs, and finds out whether they can be written. The owner is asked only
// where something is missing.
func (s *Store) prepare(ctx context.Context, app *pgxpool.Config, o Options) error {
	files, want, err := steps()
	if err != nil {
		return err
	}
	ready, err := s.look(ctx, want)
	if err != nil || ready {
		return err
	}
	if err := migrate(ctx, app, files, o); err != nil {
		return err
	}
	ready, err = s.look(ctx, want)
	if err == nil && !ready {
		err = fmt.Errorf("ledger/postgres: the role %s may not write what the ledger needs: give the URL of the tables' owner as migrate_url, who lets it",
			app.ConnConfig.User)
	}
	return err
}

// steps are all migrations, and the version of the last.
func steps() (files fs.FS, want int64, err error) {
	if files, err = fs.Sub(migrations, "migrations"); err != nil {
		return nil, 0, err
	}
	if files, err = sqlstore.Migrations(files); err != nil {
		return nil, 0, err
	}
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return nil, 0, err
		}
		want = max(want, n)
	}
	return files, want, nil
}

// look finds out, as the role that will write, whether the tables are there and it may, and what time it is.
func (s *Store) look(ctx context.Context, want int64) (ready bool, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var have, now, last int64
		var sync bool
		err := c.QueryRow(ctx, "SELECT COALESCE(max(version_id), 0) FROM "+versions).Scan(&have)
		switch {
		case missing(err):
			return nil
		case err != nil:
			return err
		case have > want:
			return fmt.Errorf("%w: its schema has version %d, this program knows %d: use a newer program", ErrSchema, have, want)
		case have < want:
			return nil
		}
		err = c.QueryRow(ctx, `SELECT `+asked+`, current_setting('fsync') = 'on',
			has_table_privilege('audit', 'INSERT') AND has_table_privilege('reservations', 'DELETE')
			AND has_table_privilege('revocations', 'DELETE') AND has_table_privilege('allowances', 'DELETE')
			AND has_table_privilege('objects', 'DELETE')
			AND has_function_privilege('x402_archive(bigint, bigint)', 'EXECUTE')`).Scan(&now, &last, &sync, &ready)
		if missing(err) {
			return nil
		}
		if err != nil {
			return err
		}
		s.clock.hear(now, last)
		if sync {
			return nil
		}
		if !loopback(c.PgConn().Conn().RemoteAddr()) {
			return fmt.Errorf("%w: the database does not sync its disk, so what it acknowledges may be lost with the machine: set fsync = on; "+
				"off is accepted, for tests, only of a server that is reached by a loopback address (127.0.0.1)", ErrSchema)
		}
		s.log.Warn("the database does not sync its disk (fsync = off): what it acknowledges may be lost with the machine")
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("looking into the ledger: %w", err)
	}
	return ready, nil
}

// loopback reports whether an address is this machine's own.
func loopback(a net.Addr) bool {
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// missing reports whether err says that a table is not there, or may not be used.
func missing(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == codeNoTable || e.Code == codeDenied)
}

// migrate makes the tables as their owner, and gives the application its rights.
func migrate(ctx context.Context, app *pgxpool.Config, files fs.FS, o Options) error {
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
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true),
		goose.WithTableName(versions), goose.WithSessionLocker(locker{}))
	if err != nil {
		return fmt.Errorf("ledger/postgres: preparing the tables: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return unusable(ctx, err, o)
	}
	if o.MigrateURL == "" || owner.User == app.ConnConfig.User {
		return nil
	}
	return grant(ctx, db, app.ConnConfig.User)
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
	"SELECT ON payments, audit, audit_archive, anchors, wallets, transactions, transaction_archive, transaction_payments, reservations, revocations, allowances, objects, meta, heartbeat, " + versions,
	"INSERT ON payments, audit, anchors, wallets, transactions, transaction_payments, reservations, revocations, allowances, objects, meta, heartbeat",
	`UPDATE (version, settlement, delivery, refund, reason, tx_hash, block_number, block_hash, is_final, hold_fence, hold_until, plan_until,
		served_by, created_at, updated_at, settled_at, delivered_at, state, is_open, is_unserved, is_closed, audit_hash, check_at, is_archived)
		ON payments`,
	"UPDATE (next_nonce) ON wallets",
	"UPDATE (at) ON heartbeat",
	"UPDATE, DELETE ON reservations, allowances, objects",
	"DELETE ON meta, revocations",
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
