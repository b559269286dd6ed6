package bed

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"
)

// tell logs what the ledger remembers, for whoever must find out why a test failed.
func (s *Shop) tell(t testing.TB) {
	if !t.Failed() {
		return
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.Rig.Dir, "ledger.db")+"?mode=ro")
	if err != nil {
		t.Log("opening the ledger:", err)
		return
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()),
		`SELECT payment_id, at, event, actor, reason, settlement, delivery, refund, served_by FROM audit ORDER BY at, version`)
	if err != nil {
		t.Log("reading the ledger:", err)
		return
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, event, actor, reason, settlement, delivery, refund, servedBy string
		var at int64
		if err := rows.Scan(&id, &at, &event, &actor, &reason, &settlement, &delivery, &refund, &servedBy); err != nil {
			t.Log("reading the ledger:", err)
			return
		}
		t.Log(time.UnixMicro(at).Format("15:04:05.000"), id, event, "by", actor, reason, "->", settlement, delivery, refund, servedBy)
	}
	if err := rows.Err(); err != nil {
		t.Log("reading the ledger:", err)
	}
}
