package tokens

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func pemFile(t *testing.T, dir, name string, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, dir, name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// file is a placeholder of what is in a file.
func file(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return "{file." + path + "}"
}

// Keys that stand in the configuration, secrets or PEM, are rotated by three reloads: the new one is accepted, and shown if it can be, before
// it signs, and what the old one has signed is taken until that is taken out.
func TestConfiguredKeysRotateByReload(t *testing.T) {
	dir := t.TempDir()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := rig.New(t, rig.Options{Site: shop})
	buyer := 0
	for name, keys := range map[string]struct {
		old, next string
		shown     int // when both are there
	}{
		"PEM":     {pemFile(t, dir, "ed.pem", ed), pemFile(t, dir, "ec.pem", ec), 2},
		"secrets": {file(t, dir, "a", []byte(rand.Text()+rand.Text())), file(t, dir, "b", []byte(rand.Text()+rand.Text()+"\n")), 0},
	} {
		t.Run(name, func(t *testing.T) {
			load := func(keys ...string) string {
				t.Helper()
				o := rig.Options{Site: shop, App: "token_key " + strings.Join(keys, "\n\t\ttoken_key ")}
				r.Load(o)
				return r.Caddyfile(o)
			}
			buy := func() string {
				t.Helper()
				buyer++
				a, _ := rig.NewBuyer(t, buyer).Buy(r.URL("/plans/x"))
				if a.Status != http.StatusOK {
					t.Fatalf("buying: %d %s", a.Status, a.Body)
				}
				return a.Header.Get("X-Access-Token")
			}
			wants := func(token string, status int) {
				t.Helper()
				if a := rig.NewBuyer(t, 0).Get(r.URL("/plans/x"), bearer(token)...); a.Status != status {
					t.Errorf("%d %v %s, want %d", a.Status, a.Err, a.Body, status)
				}
			}
			load(keys.old)
			first := buy()
			text := load(keys.old, keys.next)
			wants(first, http.StatusOK)
			if second := buy(); kidOf(second) != kidOf(first) {
				t.Error("the second key signs")
			}
			if n := strings.Count(rig.NewBuyer(t, 0).Get(r.URL("/.well-known/jwks.json")).Body, `"kid"`); n != keys.shown {
				t.Errorf("%d keys are shown, want %d", n, keys.shown)
			}
			listed(t, r, text, kidOf(first))
			load(keys.next, keys.old)
			third := buy()
			if kidOf(third) == kidOf(first) {
				t.Error("the first key does not sign")
			}
			wants(first, http.StatusOK)
			wants(third, http.StatusOK)
			load(keys.next)
			wants(first, http.StatusPaymentRequired)
			wants(third, http.StatusOK)
		})
	}
}

// listed looks at the keys of a configuration by command, which can't change them.
func listed(t *testing.T, r *rig.Rig, text, signs string) {
	t.Helper()
	f := &fleet{t: t, dir: r.Dir}
	path := filepath.Join(r.Dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list := f.keys(0, "list", "--config", path)
	if list.Source != "configuration" || len(list.Keys) != 2 || list.of("signing").ID != signs || list.of("verifying").ID == "" {
		t.Errorf("listed: %+v", list)
	}
	if refused := f.keys(2, "rotate", "--config", path); refused.Error.Code != "keys_configured" {
		t.Errorf("rotated: %+v", refused)
	}
}
