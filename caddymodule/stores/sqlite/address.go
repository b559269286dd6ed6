package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// FromAddress implements caddymodule.AddressedStore: sqlite:/path/to/ledger.db, or sqlite:ledger.db in the current
// directory.
func (s *Store) FromAddress(address string) error {
	path, ok := strings.CutPrefix(address, "sqlite:")
	if !ok || path == "" || strings.HasPrefix(path, "//") {
		return errors.New("a sqlite ledger is written sqlite:/path/to/ledger.db")
	}
	s.Path = path
	return nil
}

// Exists implements caddymodule.ExistingStore.
func (s *Store) Exists(ctx context.Context) error {
	switch info, err := os.Stat(s.Path); {
	case errors.Is(err, os.ErrNotExist):
		return caddymodule.NoLedgerError("there is no ledger in " + s.Path + "; Caddy keeps its own in the data directory of the user that it runs as")
	case err != nil:
		return fmt.Errorf("looking for the ledger: %w", err)
	case info.IsDir():
		return caddymodule.NoLedgerError(s.Path + " is a directory, not a ledger")
	}
	switch yes, err := sqlite.Exists(ctx, s.Path); {
	case err != nil:
		return fmt.Errorf("%s: %w", s.Path, err)
	case !yes:
		return caddymodule.NoLedgerError(s.Path + " is empty, or another program's: it holds no ledger")
	}
	return nil
}

// Interface guards.
var (
	_ caddymodule.AddressedStore = (*Store)(nil)
	_ caddymodule.ExistingStore  = (*Store)(nil)
)
