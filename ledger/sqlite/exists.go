package sqlite

import (
	"context"
	"database/sql"
	"fmt"
)

// Exists reports whether the file path, which must be there, holds a ledger, of whatever version. It writes nothing: Open
// would make a ledger of an empty file, and of another program's database too.
func Exists(ctx context.Context, path string) (bool, error) {
	// Not read-only, since a file whose log is yet to be folded in may not be readable then; but no statement can write.
	db, err := sql.Open("sqlite", dsn(path, false)+"&_pragma=query_only(1)")
	if err != nil {
		return false, fmt.Errorf("ledger/sqlite: opening %s: %w", path, err)
	}
	defer func() { _ = db.Close() }()
	var found int
	err = db.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master
		WHERE type = 'table' AND name IN ('payments', 'audit', 'wallets', 'transactions')`).Scan(&found)
	if err != nil {
		return false, unusable(err)
	}
	return found == 4, nil
}
