package sqlite_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// A payment that is hidden from who would work on it is found by a verification, in whichever way it is.
func TestMisfiled(t *testing.T) {
	h := newHands()
	s := openAt(t, filepath.Join(t.TempDir(), "ledger.db"), h)
	final := ledger.Change{Event: ledger.EventFinal}
	archived := mustUpdate(t, s, mustClaim(t, s), ledger.Change{Event: ledger.EventVoid}, final)
	h.add(2 * month)
	mustSweep(t, s, 1)
	mustClaim(t, s)
	verify(t, s, "")
	for _, change := range []string{
		"state = 'refunded'", "is_open = 0", "is_open = 7", "is_unserved = 0", "is_closed = 1",
		"audit_hash = (SELECT hash FROM audit_archive LIMIT 1)",
	} {
		column, _, _ := strings.Cut(change, " ")
		where := " WHERE id <> '" + archived.ID + "'"
		if err := s.Exec("CREATE TEMP TABLE kept AS SELECT " + column + " AS was FROM payments" + where); err != nil {
			t.Fatal(err)
		}
		if err := s.Exec("UPDATE payments SET " + change + where); err != nil {
			t.Fatal(err)
		}
		verify(t, s, column)
		if err := s.Exec("UPDATE payments SET " + column + " = (SELECT was FROM kept)" + where); err != nil {
			t.Fatal(err)
		}
		if err := s.Exec("DROP TABLE kept"); err != nil {
			t.Fatal(err)
		}
	}
	verify(t, s, "")
	if err := s.Exec("UPDATE payments SET is_closed = 0 WHERE is_archived = 1"); err != nil {
		t.Fatal(err)
	}
	verify(t, s, "is_closed")
}

// verify wants the one problem that the column is wrong; none if it is empty.
func verify(t *testing.T, s *sqlite.Store, column string) {
	t.Helper()
	r, err := ledger.Verify(t.Context(), s, ledger.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if column == "" && r.Found == 0 {
		return
	}
	if column == "" || r.Found != 1 || r.Problems[0].Kind != ledger.ProblemFiled || !strings.Contains(r.Problems[0].Message, column+" is ") {
		t.Errorf("%q is wrong: %+v", column, r)
	}
}
