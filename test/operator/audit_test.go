package operator

import (
	"bufio"
	"context"
	"database/sql"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// tampered gives a copy of the ledger in which somebody who can write its file has done what the statements say.
func (o *office) tampered(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tampered.db")
	o.exec(t, o.path(), "VACUUM INTO '"+path+"'")
	var triggers []string
	o.query(t, path, "SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger'", &triggers)
	if len(triggers) == 0 {
		t.Fatal("nothing keeps the ledger from being changed")
	}
	o.exec(t, path, append(triggers, statements...)...)
	return path
}

func (o *office) exec(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func (o *office) query(t *testing.T, path, query string, into *[]string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		*into = append(*into, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// Whatever is done to a ledger behind its back, verification says that it was, and where.
func TestOperatorFindsTampering(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 3)
	first := o.anchor(t)
	o.sell(t, 1)
	last := o.anchor(t)
	list := decode[opPage](t, o.ask(t, http.MethodGet, "/x402/payments").Body).Payments
	oldest := list[len(list)-1].ID
	of := func(s string) string { return strings.ReplaceAll(s, "$id", "'"+oldest+"'") }
	remove := []string{
		of("DELETE FROM transaction_payments WHERE payment_id = $id"), of("DELETE FROM audit WHERE payment_id = $id"), of("DELETE FROM payments WHERE id = $id"),
	}
	for _, tc := range []struct {
		name       string
		statements []string
		expect     string
		kinds      []ledger.ProblemKind
		says       string
	}{
		{"nothing", nil, "", nil, "whole"},
		{"nothing, with the anchor that was kept", nil, first.Hash.Hex(), nil, "whole"},
		{"an entry is changed", []string{of("UPDATE audit SET actor = 'nobody' WHERE payment_id = $id AND version = 3")}, "", []ledger.ProblemKind{ledger.ProblemTrail, ledger.ProblemEntry}, oldest},
		{"an entry is removed", []string{of("DELETE FROM audit WHERE payment_id = $id AND version = 3")}, "", []ledger.ProblemKind{ledger.ProblemTrail, ledger.ProblemEntries}, oldest},
		{"the last entry is removed, and the payment fits", []string{
			of("DELETE FROM audit WHERE payment_id = $id AND version = 6"),
			of("UPDATE payments SET version = 5, is_final = 0, updated_at = (SELECT at FROM audit WHERE payment_id = $id AND version = 5) WHERE id = $id"),
		}, "", []ledger.ProblemKind{ledger.ProblemEntries}, "anchor 1"},
		{"entries are reordered", []string{
			of("UPDATE audit SET version = 103 WHERE payment_id = $id AND version = 3"), of("UPDATE audit SET version = 3 WHERE payment_id = $id AND version = 4"),
			of("UPDATE audit SET version = 4 WHERE payment_id = $id AND version = 103"),
		}, "", []ledger.ProblemKind{ledger.ProblemTrail}, oldest},
		{"an amount is changed", []string{of("UPDATE payments SET amount = '1' WHERE id = $id")}, "", []ledger.ProblemKind{ledger.ProblemTrail}, oldest},
		{"a refund is made up", []string{of("UPDATE payments SET refund = 'refunded', delivery = 'none', state = 'REFUNDED' WHERE id = $id")}, "", []ledger.ProblemKind{ledger.ProblemTrail}, oldest},
		{"a payment is removed with all its traces", remove, "", []ledger.ProblemKind{ledger.ProblemEntries}, "anchor 1"},
		{"an anchor is removed", []string{"DELETE FROM anchors WHERE sequence = 1"}, "", []ledger.ProblemKind{ledger.ProblemAnchor}, "anchor"},
		{"a payment and all anchors are removed", append(slices.Clone(remove), "DELETE FROM anchors"), last.Hash.Hex(), []ledger.ProblemKind{ledger.ProblemExpected}, "expected"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := []string{"audit", "verify", "--store", "sqlite:" + o.tampered(t, tc.statements...)}
			if tc.expect != "" {
				args = append(args, "--expect", tc.expect)
			}
			r := o.run(t, o.Dir, args...)
			report := decode[ledger.Report](t, r.out)
			code := 5
			if tc.kinds == nil {
				code = 0
			}
			if r.code != code || (report.Found > 0) != (code > 0) || !strings.Contains(r.err, tc.says) || strings.Contains(r.err, "NOT WHOLE") != (code > 0) {
				t.Errorf("code %d, %s\n%s", r.code, r.out, r.err)
			}
			for _, kind := range tc.kinds {
				if !slices.ContainsFunc(report.Problems, func(p ledger.Problem) bool { return p.Kind == kind }) {
					t.Errorf("no problem of the kind %s: %s", kind, r.out)
				}
			}
		})
	}
	// Nobody can see that what was anchored is gone with its anchors, but who has kept one.
	gone := "sqlite:" + o.tampered(t, append(slices.Clone(remove), "DELETE FROM anchors")...)
	if r := o.run(t, o.Dir, "audit", "verify", "--store", gone); r.code != 0 || !strings.Contains(r.err, "no anchor") {
		t.Errorf("without an anchor: code %d, %s", r.code, r.err)
	}
}

// A running Caddy says the same of its own ledger.
func TestOperatorFindsTamperingOfALiveLedger(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 1)
	anchor := o.anchor(t)
	verify := func() ran {
		return o.run(t, o.Dir, "audit", "verify", "--address", o.admin, "--expect", anchor.Hash.Hex())
	}
	if r := verify(); r.code != 0 || decode[ledger.Report](t, r.out).Payments != 2 || !strings.Contains(r.err, "the expected anchor is there") {
		t.Errorf("before: code %d, %s%s", r.code, r.out, r.err)
	}
	o.exec(t, o.path(), "DROP TRIGGER audit_no_update", "UPDATE audit SET actor = 'nobody' WHERE version = 2")
	if r := verify(); r.code != 5 || decode[ledger.Report](t, r.out).Found < 2 {
		t.Errorf("after: code %d, %s%s", r.code, r.out, r.err)
	}
}

// An exported file is checked without the ledger: what is changed, missing, out of order or cut off in it is found.
func TestOperatorExports(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 3)
	anchor := o.anchor(t)
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.jsonl")
	r := o.run(t, dir, "audit", "export", "--store", "sqlite:"+o.path(), "--output", whole)
	if r.code != 0 || r.out != "" || !strings.Contains(r.err, "payments: 4") || !strings.Contains(r.err, "--after-anchor 1") {
		t.Fatalf("code %d, %s%s", r.code, r.out, r.err)
	}
	if info, err := os.Stat(whole); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	text, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if r := o.run(t, dir, "audit", "export", "--address", o.admin); r.code != 0 || r.out != string(text) || !strings.Contains(r.err, "payments: 4") {
		t.Errorf("by the admin endpoint: code %d, %d bytes instead of %d, %s", r.code, len(r.out), len(text), r.err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	entry := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"type":"entry"`) })
	for name, tc := range map[string]struct {
		lines []string
		code  int
	}{
		"whole":           {lines, 0},
		"changed":         {slices.Replace(slices.Clone(lines), entry, entry+1, strings.Replace(lines[entry], `"actor":"request"`, `"actor":"nobody"`, 1)), 5},
		"missing":         {slices.Delete(slices.Clone(lines), entry+1, entry+2), 5},
		"out of order":    {slices.Concat(lines[:entry], []string{lines[entry+1], lines[entry]}, lines[entry+2:]), 5},
		"cut off":         {lines[:len(lines)-1], 5},
		"cut in a line":   {[]string{string(text[:len(text)/2])}, 5},
		"nothing":         {nil, 5},
		"something else":  {[]string{"hello\n"}, 5},
		"more at the end": {append(slices.Clone(lines), "\n", lines[entry]), 5},
	} {
		file := filepath.Join(t.TempDir(), "export.jsonl")
		if err := os.WriteFile(file, []byte(strings.Join(tc.lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		r := o.run(t, dir, "audit", "verify", "--file", file, "--expect", anchor.Hash.Hex())
		if report := decode[ledger.Report](t, r.out); r.code != tc.code || (report.Found > 0) != (tc.code > 0) {
			t.Errorf("%s: code %d, %s%s", name, r.code, r.out, r.err)
		}
	}
	if r := o.run(t, dir, "audit", "export", "--store", "sqlite:"+o.path(), "--after-anchor", "7"); r.code != 3 || !strings.Contains(r.err, "anchor 7") {
		t.Errorf("after an anchor that is not there: code %d, %s", r.code, r.err)
	}
}

// An export that fails half way leaves no file, and its stream does not end as a whole one does.
func TestOperatorExportCutOff(t *testing.T) {
	o := newOffice(t)
	fill(t, o.store(t), 700)
	o.exec(t, o.path(), "DROP TRIGGER payments_no_rename", "UPDATE payments SET amount = 'much' WHERE id = (SELECT max(id) FROM payments)")
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "http://"+o.admin+"/x402/audit", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(bufio.NewReader(res.Body))
	if res.StatusCode != http.StatusOK || len(body) == 0 || err == nil {
		t.Errorf("status %d, %d bytes, %v", res.StatusCode, len(body), err)
	}
	for name, way := range map[string]string{"admin": "--address=" + o.admin, "store": "--store=sqlite:" + o.path()} {
		dir := t.TempDir()
		r := o.run(t, dir, "audit", "export", way, "-o", filepath.Join(dir, "export.jsonl"))
		left, err := os.ReadDir(dir)
		if r.code != 4 || err != nil || len(left) != 0 {
			t.Errorf("%s: code %d, %s, left %v, %v", name, r.code, r.err, left, err)
		}
	}
}
