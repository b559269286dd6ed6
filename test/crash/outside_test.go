package crash

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// payments reads the whole ledger from outside, and that its trails hold together.
func (s *scene) payments() []ledger.Payment {
	t := s.t
	t.Helper()
	path := filepath.Join(s.dir, "ledger.db")
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	var out []ledger.Payment
	for _, id := range ids(t, path) {
		// A trail grows while a process is alive; both are read again until they are of one moment.
		for range 10 {
			trail, err := store.Audit(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			p, err := store.Payment(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if p.Version != uint64(len(trail)) {
				continue
			}
			if err := ledger.VerifyAudit(&p, trail); err != nil {
				t.Error(err)
			}
			out = append(out, p)
			break
		}
	}
	return out
}

func ids(t *testing.T, path string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), "SELECT id FROM payments ORDER BY created_at")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var out []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// onChain asks the chain itself.
func (s *scene) onChain(tx common.Hash) bool {
	client, err := ethclient.Dial(s.chain.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	r, err := client.TransactionReceipt(s.t.Context(), tx)
	return err == nil && r.Status == types.ReceiptStatusSuccessful
}
