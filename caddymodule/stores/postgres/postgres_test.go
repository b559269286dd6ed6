package postgres

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/test/service"
)

func provisioned(t *testing.T, s *Store) (*Store, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	err := s.Provision(ctx)
	return s, err
}

// One ledger has one key, whoever asks for it and however it is written, and the key shows no secret.
func TestKey(t *testing.T) {
	t.Setenv("LEDGER_URL", "postgres://app:s3cr3t@db.example:5433/ledger?search_path=x402")
	t.Setenv("LEDGER_PASSWORD", "s3cr3t")
	const want = "postgres:db.example:5433/ledger?search_path=x402"
	for _, url := range []string{
		"{env.LEDGER_URL}",
		"postgres://app:{env.LEDGER_PASSWORD}@db.example:5433/ledger?search_path=x402",
		"postgresql://other@DB.example:5433/ledger?search_path=x402&sslmode=disable",
		"host=db.example port=5433 dbname=ledger user=app password={env.LEDGER_PASSWORD} search_path=x402",
	} {
		s, err := provisioned(t, &Store{URL: url})
		if err != nil || s.Key() != want {
			t.Errorf("%s has the key %q, %v; want %q", url, s.Key(), err, want)
		}
	}
	for _, url := range []string{
		"postgres://app@db.example:5432/ledger?search_path=x402", "postgres://app@db.example:5433/ledger", "postgres://app@db.example:5433/other?search_path=x402",
	} {
		if s, err := provisioned(t, &Store{URL: url}); err != nil || s.Key() == want {
			t.Errorf("%s has the key of another ledger (%v)", url, err)
		}
	}
	here, err := provisioned(t, &Store{URL: "postgres://a@localhost/ledger"})
	if err != nil {
		t.Fatal(err)
	}
	if there, err := provisioned(t, &Store{URL: "postgres://b@127.0.0.1:5432/ledger"}); err != nil || here.Key() != there.Key() {
		t.Errorf("%q and %q (%v)", here.Key(), there.Key(), err)
	}
}

// A password that everybody who sees the configuration could use is refused, unless the database is on this machine; and no
// error shows one.
func TestProvisionRefuses(t *testing.T) {
	t.Setenv("LEDGER_URL", "postgres://app:s3cr3t@db.example/ledger?sslmode=s3cr3t")
	t.Setenv("EMPTY", "")
	t.Setenv("MORE", "more")
	for name, tt := range map[string]struct {
		s   Store
		say string
	}{
		"no url":                     {Store{}, "url is missing"},
		"a literal password":         {Store{URL: "postgres://app:s3cr3t@db.example/ledger"}, "must not stand in the configuration"},
		"one among placeholders":     {Store{URL: "postgres://app:s3cr3t{env.MORE}@db.example/ledger"}, "must not stand in the configuration"},
		"one in libpq's form":        {Store{URL: "host=db.example dbname=ledger password='s3cr3t'"}, "must not stand in the configuration"},
		"one in the query":           {Store{URL: "postgres://db.example/ledger?user=app&password=s3cr3t"}, "must not stand in the configuration"},
		"one of several hosts":       {Store{URL: "postgres://app:s3cr3t@localhost,db.example/ledger"}, "must not stand in the configuration"},
		"the owner's":                {Store{URL: "postgres://app@db.example/ledger", MigrateURL: "postgres://owner:s3cr3t@db.example/ledger"}, "migrate_url: "},
		"an unknown placeholder":     {Store{URL: "{env.NOT_SET_ANYWHERE}"}, "gives nothing"},
		"an empty one":               {Store{URL: "{env.EMPTY}"}, "gives nothing"},
		"a URL that can't be read":   {Store{URL: "{env.LEDGER_URL}"}, "can't be read"},
		"a port that is none":        {Store{URL: "postgres://app:s3cr3t@db.example:s3cr3t/ledger"}, "can't be read"},
		"the owner's is another":     {Store{URL: "postgres://app@localhost/ledger", MigrateURL: "postgres://owner@localhost/other"}, "same database"},
		"less than no connections":   {Store{URL: "postgres://app@localhost/ledger", MaxConns: -1}, "max_conns"},
		"a password with a slash in": {Store{URL: "postgres://app:s3cr3t/x@db.example/ledger"}, ""},
	} {
		_, err := provisioned(t, &tt.s)
		if err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: %v, want an error that says %q", name, err, tt.say)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
	for _, url := range []string{"postgres://app:s3cr3t@127.0.0.1/ledger", "postgres://app:s3cr3t@[::1]/ledger", "host=/run/postgresql dbname=ledger password=s3cr3t"} {
		if _, err := provisioned(t, &Store{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Only Open connects.
func TestOpen(t *testing.T) {
	server, err := service.StartPostgres(t.Context(), service.PostgresOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	name, err := server.CreateDatabase(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LEDGER_URL", server.URL(name))
	s, err := provisioned(t, &Store{URL: "{env.LEDGER_URL}", MaxConns: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if s, err := s.Open(t.Context()); err == nil {
		t.Error("opened without a server")
		_ = s.Close()
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	store, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	for text, want := range map[string]Store{
		"postgres postgres://h/d": {URL: "postgres://h/d"},
		"postgres {env.URL} {\n}": {URL: "{env.URL}"},
		"postgres {env.URL} {\nmigrate_url {env.OWNER}\nmax_conns 7\n}": {URL: "{env.URL}", MigrateURL: "{env.OWNER}", MaxConns: 7},
	} {
		var s Store
		err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err != nil || s.URL != want.URL || s.MigrateURL != want.MigrateURL || s.MaxConns != want.MaxConns {
			t.Errorf("%q gives %+v, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		"postgres":                                      "takes one URL",
		"postgres a b":                                  "takes one URL",
		"postgres a {\nmigrate_url\n}":                  "wrong argument count",
		"postgres a {\nmigrate_url b c\n}":              "wrong argument count",
		"postgres a {\nmigrate_url b\nmigrate_url c\n}": "given twice",
		"postgres a {\nmax_conns none\n}":               "positive number",
		"postgres a {\nmax_conns 0\n}":                  "positive number",
		"postgres a {\npath b\n}":                       "no setting",
	} {
		var s Store
		if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
