package operator

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/postgres"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// A ledger outgrows its machine: it is copied into PostgreSQL by one role, used there by another that may not change what
// was, and looked at by every way. No password is shown.
func TestOperatorMovesToPostgres(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 4)
	o.anchor(t)
	p, err := service.StartPostgres(t.Context(), service.PostgresOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	ctx := context.WithoutCancel(t.Context())
	name, err := p.CreateDatabase(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Exec(ctx, name, "CREATE ROLE app LOGIN PASSWORD 'hush-hush'"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPERATOR_PASSWORD", "hush-hush")
	t.Setenv("OPERATOR_OWNER", p.URL(name))
	app := strings.Replace(p.URLAs("app", "PASSWORD", name), "PASSWORD", "{env.OPERATOR_PASSWORD}", 1)
	quiet := func(r ran) ran {
		t.Helper()
		if strings.Contains(r.out+r.err, "hush-hush") {
			t.Errorf("the password is shown: %s%s", r.out, r.err)
		}
		return r
	}
	// The tables are not the role's to make.
	r := quiet(o.run(t, o.Dir, "ledger", "copy", "--from", "sqlite:"+o.path(), "--to", app))
	if r.code != 4 {
		t.Errorf("without the owner: code %d, %s%s", r.code, r.out, r.err)
	}
	said := o.copyTo(t, app, "--migrate-url", "{env.OPERATOR_OWNER}")
	if !strings.Contains(said, "app:xxxxx@127.0.0.1") || strings.Contains(said, "hush-hush") {
		t.Errorf("says %s", said)
	}

	moved := o.options
	moved.Store = "postgres " + app
	o.reload(t, moved)
	if a, _ := rig.NewBuyer(t, 1).Buy(o.URL("/weather")); a.Status != http.StatusOK {
		t.Fatalf("after the move: %d %s", a.Status, a.Body)
	}
	t.Setenv("OPERATOR_URL", p.URL(name))
	ids := func(list []opPayment) (out []string) {
		for _, q := range list {
			out = append(out, q.ID)
		}
		return out
	}
	want := ids(decode[opPage](t, o.ask(t, http.MethodGet, "/x402/payments").Body).Payments)
	for _, way := range [][]string{{"--address", o.admin}, {"--store", app}, {"--store", "{env.OPERATOR_URL}"}, {"--config", o.config}} {
		r := quiet(o.run(t, t.TempDir(), append([]string{"payments", "list"}, way...)...))
		if got := ids(result[opPage](t, r).Payments); len(got) != 6 || !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", way, got, want)
		}
		r = quiet(o.run(t, t.TempDir(), append([]string{"audit", "verify"}, way...)...))
		if report := result[ledger.Report](t, r); report.Payments != 6 || report.Anchors != 1 {
			t.Errorf("%v: %s", way, r.out)
		}
	}
	if err := p.Exec(ctx, name, "ALTER TABLE audit DISABLE TRIGGER ALL; UPDATE audit SET actor = 'nobody' WHERE version = 2"); err != nil {
		t.Fatal(err)
	}
	if r := quiet(o.run(t, o.Dir, "audit", "verify", "--store", app)); r.code != 5 || decode[ledger.Report](t, r.out).Found < 6 {
		t.Errorf("after tampering: code %d, %s", r.code, r.out)
	}
	// Somebody who does not know the password.
	t.Setenv("OPERATOR_PASSWORD", "hush-hush-hush")
	if r := quiet(o.run(t, o.Dir, "payments", "list", "--store", app)); r.code != 4 {
		t.Errorf("with a wrong password: code %d, %s", r.code, r.err)
	}
}
