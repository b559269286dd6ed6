package operator

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// ways are how commands come to the ledger of o, each with what they say of it.
func (o *office) ways(t *testing.T) map[string]struct {
	args []string
	dir  string
	says string
} {
	t.Helper()
	off := filepath.Join(t.TempDir(), "off.caddyfile")
	if err := os.WriteFile(off, []byte(o.Caddyfile(o.options)), 0o600); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "Caddyfile")
	text := strings.Replace(o.Caddyfile(o.options), "admin off", "admin "+rig.FreeAddr(t), 1)
	if err := os.WriteFile(away, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	type way = struct {
		args []string
		dir  string
		says string
	}
	return map[string]way{
		"address":                      {[]string{"--address", o.admin}, t.TempDir(), "asking the Caddy at " + o.admin + " (its ledger: sqlite)"},
		"configuration of the running": {[]string{"--config", o.config}, t.TempDir(), "asking the Caddy at " + o.admin},
		"Caddyfile here":               {nil, o.Dir, "asking the Caddy at " + o.admin},
		"Caddyfile here, none runs":    {nil, filepath.Dir(away), "looking straight into the ledger of Caddyfile, sqlite"},
		"endpoint off":                 {[]string{"--config", off, "--adapter", "caddyfile"}, t.TempDir(), "its admin endpoint is off; looking straight into"},
		"store":                        {[]string{"--store", "sqlite:" + o.path()}, t.TempDir(), "looking straight into the ledger sqlite:" + o.path()},
		"placeholder":                  {[]string{"--store", "sqlite:{env.OPERATOR_DIR}/ledger.db"}, t.TempDir(), "sqlite:{env.OPERATOR_DIR}/ledger.db"},
		"all a placeholder":            {[]string{"--store", "{env.OPERATOR_LEDGER}"}, t.TempDir(), "{env.OPERATOR_LEDGER}"},
	}
}

func (o *office) run(t *testing.T, dir string, args ...string) ran {
	t.Helper()
	// Nobody listens where the endpoint is by default.
	env := []string{"OPERATOR_DIR=" + o.Dir, "OPERATOR_LEDGER=sqlite:" + o.path(), "CADDY_ADMIN=" + rig.FreeAddr(t)}
	return caddyX402(t, dir, env, args...)
}

// Whichever way a command takes to the ledger, it finds the same, and says which way it took.
func TestOperatorCommandsByEveryWay(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 4)
	want := decode[opPage](t, o.ask(t, http.MethodGet, "/x402/payments").Body)
	file := o.ask(t, http.MethodGet, "/x402/payments/"+want.Payments[0].ID).Body
	for name, way := range o.ways(t) {
		t.Run(name, func(t *testing.T) {
			r := o.run(t, way.dir, append([]string{"payments", "list"}, way.args...)...)
			if got := result[opPage](t, r); !slices.Equal(got.Payments, want.Payments) || got.Page.Next != "" {
				t.Errorf("listed %s", r.out)
			}
			if !strings.Contains(r.err, way.says) {
				t.Errorf("says %s", r.err)
			}
			r = o.run(t, way.dir, append([]string{"payments", "show", want.Payments[0].ID}, way.args...)...)
			if strings.TrimSpace(r.out) != strings.TrimSpace(file) || r.code != 0 {
				t.Errorf("code %d, shown\n%s\nwant\n%s", r.code, r.out, file)
			}
			r = o.run(t, way.dir, append([]string{"payments", "states"}, way.args...)...)
			if got := result[opStates](t, r); got.Total != 5 || len(got.States) != len(ledger.States()) {
				t.Errorf("states %s", r.out)
			}
		})
	}
}

// Lists are cut where it was asked for, and go on there; --all takes as many pages as it needs.
func TestOperatorCommandPages(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 6)
	for name, way := range map[string]string{"store": "--store=sqlite:" + o.path(), "admin": "--address=" + o.admin} {
		t.Run(name, func(t *testing.T) {
			list := func(args ...string) opPage {
				t.Helper()
				return result[opPage](t, o.run(t, o.Dir, append([]string{"payments", "list", way}, args...)...))
			}
			all := list("--all")
			if len(all.Payments) != 7 || all.Page.Next != "" {
				t.Fatalf("all are %d", len(all.Payments))
			}
			first := list("--limit", "4")
			rest := list("--limit", "4", "--cursor", first.Page.Next)
			if len(first.Payments) != 4 || rest.Page.Next != "" || !slices.Equal(append(first.Payments, rest.Payments...), all.Payments) {
				t.Errorf("%d and %d payments", len(first.Payments), len(rest.Payments))
			}
			if got := list("--limit", "7"); got.Page.Next != "" {
				t.Error("there is a page after the last payment")
			}
			if got := list("--state", "refund-pending"); len(got.Payments) != 1 || got.Payments[0] != all.Payments[0] {
				t.Errorf("to refund: %v", got)
			}
			if got := list("--payer", devnet.Payer(2).Address.Hex(), "--all"); len(got.Payments) != 2 {
				t.Errorf("of payer 2: %v", got)
			}
			if got := list("--state", "FAILED"); got.Payments == nil || len(got.Payments) != 0 {
				t.Errorf("failed: %v", got)
			}
		})
	}
}

// More payments than a page of the endpoint holds: the commands ask for the next ones themselves.
func TestOperatorCommandManyPages(t *testing.T) {
	o := newOffice(t)
	const many = 230
	fill(t, o.store(t), many)
	seen := map[string]bool{}
	for _, way := range []string{"--store=sqlite:" + o.path(), "--address=" + o.admin} {
		for _, tc := range []struct {
			args []string
			want int
		}{{[]string{"--all"}, many}, {[]string{"--limit=150"}, 150}, {[]string{"--limit=100"}, 100}} {
			clear(seen)
			page := result[opPage](t, o.run(t, o.Dir, append([]string{"payments", "list", way}, tc.args...)...))
			for _, p := range page.Payments {
				seen[p.ID] = true
			}
			if len(page.Payments) != tc.want || len(seen) != tc.want || (page.Page.Next != "") != (tc.want < many) {
				t.Errorf("%s %v: %d payments, %d of them different, next %q", way, tc.args, len(page.Payments), len(seen), page.Page.Next)
			}
		}
	}
}

// Every mistake has its exit code, its code for programs and its words; secrets are in none of them.
func TestOperatorCommandMistakes(t *testing.T) {
	o := newOffice(t)
	dir, store := t.TempDir(), "--store=sqlite:"+o.path()
	none := filepath.Join(dir, "none.db")
	for _, tc := range []struct {
		code       int
		word, says string
		args       []string
	}{
		{3, "payment_not_found", "no payment", []string{"payments", "show", "pay_nobody", store}},
		{3, "payment_not_found", "no payment", []string{"payments", "show", "pay_nobody", "--address", o.admin}},
		{3, "payment_not_found", "no payment", []string{"payments", "show", "../states", "--address", o.admin}},
		{3, "ledger_not_found", none, []string{"payments", "list", "--store", "sqlite:" + none}},
		{3, "ledger_not_found", "a directory", []string{"payments", "list", "--store", "sqlite:" + dir}},
		{3, "ledger_not_found", none, []string{"ledger", "copy", "--from", "sqlite:" + none, "--to", "sqlite:" + none + "2"}},
		{3, "ledger_not_found", "export", []string{"audit", "verify", "--file", none}},
		{2, "invalid_request", "kind:address", []string{"payments", "list", "--store", o.path()}},
		{2, "invalid_request", "without the store mysql", []string{"payments", "list", "--store", "mysql://u:hush-hush@h/d"}},
		{2, "invalid_request", "placeholder", []string{"payments", "list", "--store", "{env.NOT_SET_ANYWHERE}"}},
		{2, "invalid_request", "leave out", []string{"payments", "list", store, "--address", o.admin}},
		{2, "invalid_request", "leave out", []string{"audit", "verify", "--file", none, store}},
		{2, "invalid_request", "no state", []string{"payments", "list", store, "--state", "PAYMENT"}},
		{2, "invalid_request", "payer", []string{"payments", "list", store, "--payer", "me"}},
		{2, "invalid_request", "limit", []string{"payments", "list", store, "--limit", "0"}},
		{2, "invalid_request", "cursor", []string{"payments", "list", store, "--cursor", "x"}},
		{2, "invalid_request", "expect", []string{"audit", "verify", store, "--expect", "0x12"}},
		{2, "invalid_request", "--from and --to", []string{"ledger", "copy", "--from", "sqlite:" + o.path()}},
		{2, "invalid_request", "same ledger", []string{"ledger", "copy", "--from", "sqlite:" + o.path(), "--to", "sqlite:" + o.Dir + "/../" + filepath.Base(o.Dir) + "/ledger.db"}},
		{2, "", "unknown flag", []string{"payments", "list", "--stat", "PAID"}},
		{2, "", "show --help", []string{"payments", "show"}},
		{4, "ledger_unavailable", "no Caddy answers", []string{"payments", "list", "--address", rig.FreeAddr(t)}},
	} {
		r := o.run(t, dir, tc.args...)
		if r.code != tc.code || !strings.Contains(r.err, tc.says) || strings.Contains(r.out+r.err, "hush-hush") {
			t.Errorf("%q: code %d, %s%s", tc.args, r.code, r.out, r.err)
		}
		if tc.word != "" && decode[opError](t, r.out).Error.Code != tc.word {
			t.Errorf("%q: %s", tc.args, r.out)
		}
	}
	if left, err := filepath.Glob(none + "*"); err != nil || len(left) > 0 {
		t.Errorf("looking made %v", left)
	}
	r := o.run(t, dir, "payments", "list")
	if r.code != 3 || !strings.Contains(r.err, "--store") || decode[opError](t, r.out).Error.Code != "ledger_not_found" {
		t.Errorf("nowhere: code %d, %s", r.code, r.err)
	}
}
