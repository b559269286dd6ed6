package caddymodule

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// The kind of a ledger's address leads to its module; a placeholder may stand for all of it.
func TestResolveAddress(t *testing.T) {
	t.Setenv("LEDGER_URL", " redis+cluster://u:p{w@a,b:7000/0\n")
	for address, want := range map[string][2]string{
		"sqlite:/var/lib/x.db":           {"sqlite", "sqlite:/var/lib/x.db"},
		"sqlite:x.db":                    {"sqlite", "sqlite:x.db"},
		"postgres://u@h/d":               {"postgres", "postgres://u@h/d"},
		"postgresql://u:{env.HOME}@h/d":  {"postgres", "postgresql://u:{env.HOME}@h/d"},
		"redis://h:6379/0":               {"redis", "redis://h:6379/0"},
		"rediss://h":                     {"redis", "rediss://h"},
		"redis+sentinel://h1,h2/main/0":  {"redis", "redis+sentinel://h1,h2/main/0"},
		"rediss+cluster://h1,h2":         {"redis", "rediss+cluster://h1,h2"},
		"REDIS://h":                      {"redis", "REDIS://h"},
		"{env.LEDGER_URL}":               {"redis", `redis+cluster://u:p\{w@a,b:7000/0`},
		"{env.NOT_SET_ANYWHERE}":         {},
		"postgres://{env.NOT_SET}@h/d":   {},
		"/var/lib/x.db":                  {},
		"":                               {},
		":x":                             {},
		"../x402.stores.sqlite:x":        {},
		"sqlite.other:x":                 {},
		"postgres //u:{env.HOME}@h/db:1": {},
	} {
		kind, resolved, err := resolveAddress(address)
		if (err == nil) != (want[0] != "") || err == nil && (kind != want[0] || resolved != want[1]) {
			t.Errorf("%q: kind %q, %q, %v", address, kind, resolved, err)
		}
	}
}

// Nothing that is printed of an address shows a password, however odd that is.
func TestShownAddress(t *testing.T) {
	t.Setenv("LEDGER_PASSWORD", "pa55word")
	for address, want := range map[string]string{
		"sqlite:/var/lib/x.db":                                 "sqlite:/var/lib/x.db",
		"{env.LEDGER_URL}":                                     "{env.LEDGER_URL}",
		"postgres://u@h:5432/d?sslmode=require":                "postgres://u@h:5432/d",
		"postgres://u:pa55word@h/d?password=pa55word":          "postgres://u:xxxxx@h/d",
		"postgres://u:pa55@w/ord@h/d":                          "postgres://u:xxxxx@h/d",
		"postgres://u:{env.LEDGER_PASSWORD}@h/d":               "postgres://u:xxxxx@h/d",
		"redis+sentinel://:pa55word@a,b/m/0?sentinel_password": "redis+sentinel://:xxxxx@a,b/m/0",
		"postgres:host=h user=u password=pa55word":             "postgres:…",
	} {
		kind, _, _ := strings.Cut(address, ":")
		if got := shownAddress(kind, address); got != want {
			t.Errorf("%s is shown as %s", address, got)
		}
	}
	for source, text := range map[string]string{
		"postgres://u:pa55word@h/d":              "dial u:pa55word@h: refused pa55word",
		"postgres://u:{env.LEDGER_PASSWORD}@h/d": "cannot parse postgres://u:pa55word@h/d",
		`{"url":"redis://:pa55word@h"}`:          "AUTH pa55word failed",
		"redis://h?sentinel_password=pa55word":   "AUTH pa55word failed",
		"host=h password=pa55word user=u":        "pa55word is wrong",
	} {
		if got := scrub(text, source); strings.Contains(got, "pa55word") || !strings.Contains(got, "xxxxx") {
			t.Errorf("of %s: %s", source, got)
		}
	}
	if got := scrub("connection refused", "postgres://u@h/d"); got != "connection refused" {
		t.Error(got)
	}
}

// Columns are aligned whatever is in them, and no line is longer than the terminal is wide.
func TestTextTable(t *testing.T) {
	table := newTable("name", "n")
	table.AppendRow([]any{"a", 5})
	table.AppendRow([]any{"b…c", 1234})
	for limit, want := range map[int]string{
		0: "NAME     N\na        5\nb…c   1234\n", 10: "NAME     N\na        5\nb…c   1234\n", 7: "NAME  …\na     …\nb…c   …\n",
	} {
		var out bytes.Buffer
		if err := writeTable(&out, table, limit); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%d: %q", limit, out.String())
		}
	}
	for width, want := range map[int]int{0: len(columns), 1000: len(columns), 80: 3, 60: 3, 100: 4, 20: 3} {
		if got := len(fitting(columns, width)); got != want {
			t.Errorf("%d columns of text have room for %d columns of the table, want %d", width, got, want)
		}
	}
}

// A step's bar is drawn whole at its end; without a terminal each step is a line, and so is one that is done at once.
func TestProgress(t *testing.T) {
	for _, live := range []bool{true, false} {
		var out bytes.Buffer
		p := (&operator{err: &out, live: live}).newProgress(false)
		for i := range int64(1000) {
			p.set("copying payments", i+1, 1000)
		}
		p.set("copying wallets", 2, 2)
		p.set("comparing payments", 1, 1000) // a copy that goes on
		p.set("comparing payments", 700, 1000)
		p.set("verifying entries", 1, 0)
		p.stop(false)
		lines := strings.Split(out.String(), "\n")
		if len(lines) != 5 || lines[1] != "copying wallets: 2 of 2" || lines[4] != "" {
			t.Fatalf("live %v: %q", live, lines)
		}
		if !live {
			if lines[0] != "copying payments: 1 of 1000" || strings.ContainsAny(out.String(), "\r\x1b") {
				t.Errorf("elsewhere: %q", lines)
			}
			continue
		}
		for i, want := range map[int]string{0: "copying payments 100% |", 2: "comparing payments 100% |", 3: "verifying entries"} {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%q lacks %q", lines[i], want)
			}
		}
		if !strings.Contains(lines[0], "(1000/1000, ") || !strings.Contains(lines[2], "(700/700, ") || !strings.HasSuffix(lines[3], "(stopped)") {
			t.Errorf("on a terminal: %q", lines)
		}
	}
	var out bytes.Buffer
	p := (&operator{err: &out, live: true}).newProgress(true)
	p.set("x", 1, 2)
	p.stop(true)
	if out.Len() > 0 {
		t.Errorf("silent: %q", out.String())
	}
}

// Every error has one meaning.
func TestOperatorErrors(t *testing.T) {
	for err, want := range map[error]int{
		nil: exitOK, errTold: exitBroken, ledger.ErrNotFound: exitNotFound, ledger.ErrAudit: exitBroken, ledger.ErrIncomplete: exitUnavailable,
		context.Canceled: exitUnavailable, ledger.ErrClosed: exitUnavailable, invalidRequest("no"): exitUsage,
		&operatorError{Code: codeNoLedger}: exitNotFound, &operatorError{Code: codeInUse}: exitUsage,
	} {
		var out, errOut bytes.Buffer
		o := &operator{name: "caddy x402 test", out: &out, err: &errOut, asJSON: true}
		if got := o.finish(err); got != want {
			t.Errorf("%v ends in %d, want %d", err, got, want)
		}
		if told := err != nil && err != errTold; (out.Len() > 0) != told || (errOut.Len() > 0) != told { //nolint:errorlint // it is just that one
			t.Errorf("%v: %q, %q", err, out.String(), errOut.String())
		}
	}
}
