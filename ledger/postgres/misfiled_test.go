package postgres_test

import (
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// A payment that is hidden from who would work on it is found by a verification.
func TestMisfiled(t *testing.T) {
	s := open(t, server.URL(database(t)), postgres.Options{})
	p, err := s.Claim(t.Context(), fresh(t, 1), ledger.Change{})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(column string) {
		t.Helper()
		r, err := ledger.Verify(t.Context(), s, ledger.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if column == "" && r.Found > 0 || column != "" &&
			(r.Found != 1 || r.Problems[0].Kind != ledger.ProblemFiled || !strings.Contains(r.Problems[0].Message, column+" is ")) {
			t.Errorf("%q is wrong: %+v", column, r)
		}
	}
	verify("")
	for column, change := range map[string][2]string{
		"state": {"'void'", "'" + string(p.State()) + "'"}, "is_open": {"0", "1"}, "is_unserved": {"0", "1"}, "is_closed": {"1", "0"},
		"audit_hash": {"sha256(audit_hash)", "(SELECT hash FROM audit)"},
	} {
		for i, want := range []string{column, ""} {
			if err := s.Exec(t.Context(), "UPDATE payments SET "+column+" = "+change[i]); err != nil {
				t.Fatal(err)
			}
			verify(want)
		}
	}
}
