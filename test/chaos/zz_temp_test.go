package chaos

import (
	"context"
	"database/sql"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func oldRecords(ctx context.Context, s ledger.Store, path string) (out []ledger.Record, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id FROM payments ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		for {
			p, err := s.Payment(ctx, id)
			if err != nil {
				return nil, err
			}
			tr, err := s.Audit(ctx, id)
			if err != nil {
				return nil, err
			}
			if p.Version == uint64(len(tr)) {
				tx, _ := s.Transactions(ctx, id)
				out = append(out, ledger.Record{Payment: p, Trail: tr, Transactions: tx})
				break
			}
		}
	}
	return out, rows.Err()
}
