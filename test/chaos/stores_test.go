package chaos

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// backend is a store that the instances share.
type backend struct {
	// config is the argument of `store` for the i-th instance: each has a way of its own to the store.
	config func(i int) string
	// open opens the store for the harness, past all faults.
	open func(ctx context.Context) (ledger.Store, error)
	// faults are what can happen to the store and to the ways there.
	faults []fault
	// forgets: what the store acknowledged may be gone after a fault.
	forgets bool
}

// backends makes each store that the test knows; ways are how many instances share it.
var backends = map[string]func(t *testing.T, dir string, ways int) *backend{
	"sqlite": newSQLite,
}

// newSQLite is a file that all instances have open: those of one machine can share it. Nothing but an instance can fail.
func newSQLite(_ *testing.T, dir string, _ int) *backend {
	path := filepath.Join(dir, "ledger.db")
	return &backend{
		config: func(int) string { return "sqlite " + path },
		open:   func(ctx context.Context) (ledger.Store, error) { return sqlite.Open(ctx, path, sqlite.Options{}) },
	}
}

// recordsPage is how many payments are read at once.
const recordsPage = 500

// readLedger reads all that the store has, and the next nonce of the gas wallet.
func readLedger(ctx context.Context, b *backend, chainID uint64) (records []ledger.Record, nonce uint64, err error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer s.Close()
	after := ""
	for {
		page, err := s.Records(ctx, after, recordsPage)
		if errors.Is(err, errors.ErrUnsupported) {
			records, err = oldRecords(ctx, s, strings.TrimPrefix(b.config(0), "sqlite "))
			page = nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading the ledger: %w", err)
		}
		if records = append(records, page...); len(page) < recordsPage {
			break
		}
		after = page[len(page)-1].Payment.ID
	}
	nonce, _, err = s.Nonce(ctx, chainID, gasWallet().Address)
	return records, nonce, err
}

// waiting counts the payments that something must still happen to, by what they wait for.
func waiting(records []ledger.Record) map[string]int {
	count := make(map[string]int)
	for i := range records {
		switch p := &records[i].Payment; {
		case p.Settlement == ledger.Claimed, p.Settlement == ledger.Settling:
			count[string(p.Settlement)]++
		case p.Settlement == ledger.Settled && p.Unserved():
			count["paid, not served"]++
		}
	}
	return count
}
