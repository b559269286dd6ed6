package redis

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
	t.Setenv("LEDGER_URL", " redis://app:s3cr3t@db.example:6380/2\n")
	t.Setenv("LEDGER_PASSWORD", "s3cr3t")
	const want = "redis:db.example:6380/2/x402"
	for _, s := range []*Store{
		{URL: "{env.LEDGER_URL}"},
		{URL: "redis://app:{env.LEDGER_PASSWORD}@DB.example:6380/2"},
		{URL: "rediss://other@db.example:6380/2?server_name=db", Prefix: "x402"},
	} {
		if s, err := provisioned(t, s); err != nil || s.Key() != want {
			t.Errorf("%s has the key %q, %v; want %q", s.URL, s.Key(), err, want)
		}
	}
	for _, s := range []*Store{
		{URL: "redis://db.example:6380/1"}, {URL: "redis://db.example/2"}, {URL: "redis://db.example:6380/2", Prefix: "other"},
	} {
		if s, err := provisioned(t, s); err != nil || s.Key() == want {
			t.Errorf("%s has the key of another ledger (%v)", s.URL, err)
		}
	}
	a, err := provisioned(t, &Store{URL: "redis+cluster://localhost:7001,127.0.0.1:7000"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := provisioned(t, &Store{URL: "redis+cluster://127.0.0.1:7000,127.0.0.1:7001"}); err != nil || a.Key() != b.Key() {
		t.Errorf("%q and %q (%v)", a.Key(), b.Key(), err)
	}
}

// A password that everybody who sees the configuration could use is refused, unless the servers are on this machine; and no
// error shows one.
func TestProvisionRefuses(t *testing.T) {
	t.Setenv("LEDGER_URL", "redis://app:s3cr3t/x@db.example")
	t.Setenv("EMPTY", "")
	t.Setenv("MORE", "more")
	minus := -1
	for name, tt := range map[string]struct {
		s   Store
		say string
	}{
		"no url":                   {Store{}, "url is missing"},
		"a literal password":       {Store{URL: "redis://app:s3cr3t@db.example"}, "must not stand in the configuration"},
		"one among placeholders":   {Store{URL: "redis://app:s3cr3t{env.MORE}@db.example"}, "must not stand in the configuration"},
		"of Sentinel":              {Store{URL: "redis+sentinel://db.example/m?sentinel_password=s3cr3t"}, "must not stand in the configuration"},
		"one of several hosts":     {Store{URL: "redis+cluster://:s3cr3t@localhost,db.example"}, "must not stand in the configuration"},
		"an unknown placeholder":   {Store{URL: "{env.NOT_SET_ANYWHERE}"}, "gives nothing"},
		"an empty one":             {Store{URL: "{env.EMPTY}"}, "gives nothing"},
		"a URL that can't be read": {Store{URL: "{env.LEDGER_URL}"}, "percent-encoded"},
		"several hosts":            {Store{URL: "redis://a,b"}, "redis+sentinel"},
		"an option unknown":        {Store{URL: "redis://a?s3cr3t=1"}, "options"},
		"a prefix with braces":     {Store{URL: "redis://a", Prefix: "{x}"}, "prefix"},
		"fewer than no replicas":   {Store{URL: "redis://a", Replicas: &minus}, "replicas"},
	} {
		_, err := provisioned(t, &tt.s)
		if err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: %v, want an error that says %q", name, err, tt.say)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
	for _, url := range []string{"redis://app:s3cr3t@127.0.0.1", "redis://:s3cr3t@[::1]:6380", "redis+cluster://:s3cr3t@localhost,127.0.0.1:7000"} {
		if _, err := provisioned(t, &Store{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Only Open connects, and by default only to a server that keeps what it is given.
func TestOpen(t *testing.T) {
	server, err := service.StartRedis(t.Context(), service.RedisOptions{Fsync: "off"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	off := false
	s, err := provisioned(t, &Store{URL: server.URL(), Durable: &off})
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
	opened, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	strict, err := provisioned(t, &Store{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := strict.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "appendonly yes") {
		t.Errorf("a server that keeps nothing: %v", err)
		if err == nil {
			_ = opened.Close()
		}
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	one, on, off := 1, true, false
	for text, want := range map[string]Store{
		"redis redis://h": {URL: "redis://h"},
		"redis {env.X} {\nprefix p\nreplicas 1\ndurable off\n}": {URL: "{env.X}", Prefix: "p", Replicas: &one, Durable: &off},
		"redis redis://h {\ndurable on\n}":                      {URL: "redis://h", Durable: &on},
	} {
		var s Store
		err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err != nil || s.URL != want.URL || s.Prefix != want.Prefix || !equal(s.Replicas, want.Replicas) || !equal(s.Durable, want.Durable) {
			t.Errorf("%q gives %+v, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		"redis": "takes one URL", "redis a b": "takes one URL", "redis a {\nnonsense 1\n}": "no setting", "redis a {\nreplicas x\n}": "must be a number",
		"redis a {\ndurable maybe\n}": "on or off", "redis a {\nprefix\n}": "argument", "redis a {\nprefix a\nprefix b\n}": "twice",
	} {
		var s Store
		if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func equal[T comparable](a, b *T) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
