package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// ErrSchema: the file is no ledger that this version can use: it is damaged, not a database at all, or was
// written by a newer version.
var ErrSchema = sqlstore.ErrSchema

//go:embed migrations/*.sql
var migrations embed.FS

// Two processes that start at once both see what is missing; the second to write finds it done, and SQLite
// may refuse either with "busy" without asking its busy handler. Each migration is one transaction, so
// trying again is safe.
const (
	migrateTries = 20
	migratePause = 50 * time.Millisecond
)

func migrate(ctx context.Context, db *sql.DB) error {
	var err error
	for range migrateTries {
		if err = migrateOnce(ctx, db); err == nil || errors.Is(err, ErrSchema) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(migratePause):
		}
	}
	return err
}

func migrateOnce(ctx context.Context, db *sql.DB) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return unusable(err)
	}
	if mode != "wal" {
		return fmt.Errorf("ledger/sqlite: the file system can't carry a write-ahead log (journal mode %q)", mode)
	}
	own, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	files, err := sqlstore.Migrations(own)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return unusable(err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return unusable(err)
	}
	if have > want {
		return fmt.Errorf("%w: its schema has version %d, this program knows %d: use a newer program", ErrSchema, have, want)
	}
	if have == want {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return unusable(err)
	}
	return nil
}

// unusable adds to err that no further try will help, if that is so.
func unusable(err error) error {
	if e, ok := errors.AsType[*driver.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%w: %w", ErrSchema, err)
		}
	}
	return fmt.Errorf("ledger/sqlite: preparing the file: %w", err)
}
