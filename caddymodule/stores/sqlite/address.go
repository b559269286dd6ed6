package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caddy-x402/caddy-x402/caddymodule"
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
func (s *Store) Exists() error {
	switch info, err := os.Stat(s.Path); {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no ledger in %s; Caddy keeps its own in the data directory of the user that it runs as", s.Path)
	case err != nil:
		return fmt.Errorf("looking for the ledger: %w", err)
	case info.IsDir():
		return fmt.Errorf("%s is a directory, not a ledger", s.Path)
	}
	return nil
}

// Interface guards.
var (
	_ caddymodule.AddressedStore = (*Store)(nil)
	_ caddymodule.ExistingStore  = (*Store)(nil)
)
