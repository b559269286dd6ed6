package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Exists reports whether the database that url (or a libpq connection string) names holds a ledger, of whatever version. It
// writes nothing: Open would make the tables. No error shows a password.
func Exists(ctx context.Context, url string) (bool, error) {
	config, err := poolConfig(url, Options{})
	if err != nil {
		return false, err
	}
	c, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return false, fmt.Errorf("ledger/postgres: connecting: %w", err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	var found bool
	err = c.QueryRow(ctx, "SELECT to_regclass('"+versions+"') IS NOT NULL AND to_regclass('payments') IS NOT NULL").Scan(&found)
	if err != nil {
		return false, opaque("looking for the ledger", err)
	}
	return found, nil
}
