package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// forbidden listens where nobody may call: an RPC endpoint while a configuration is only looked at.
func forbidden(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Error("the endpoint was contacted")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return "http://" + l.Addr().String()
}

func filesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path != dir {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// `caddy validate` provisions a configuration, beside an instance that runs: that opens no ledger, makes no key and asks no
// chain, however often it is done.
func TestProvisioningIsStill(t *testing.T) {
	setSecrets(t)
	data, elsewhere := t.TempDir(), t.TempDir()
	t.Setenv("XDG_DATA_HOME", data) // where the ledger is by default
	t.Setenv("XDG_CONFIG_HOME", data)
	endpoint := forbidden(t)
	for name, lines := range map[string][]string{
		"everything by default": nil,
		"a ledger elsewhere":    {"store sqlite " + filepath.Join(elsewhere, "deep", "ledger.db")},
		"a key of one's own":    {"token_key {env.T_TOKEN}"},
	} {
		adapted, err := adapt(config(app(append(lines, "rpc "+endpoint)...), "x402 $1\nx402_service"))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			cfg := new(caddy.Config)
			if err := json.Unmarshal(adapted, cfg); err != nil {
				t.Fatal(err)
			}
			cfg.StorageRaw = json.RawMessage(fmt.Sprintf(`{"module":"file_system","root":%q}`, data))
			cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{
				WriterRaw: json.RawMessage(`{"output":"discard"}`),
			}}}}
			if err := caddy.Validate(cfg); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if found := append(filesIn(t, data), filesIn(t, elsewhere)...); len(found) > 0 {
				t.Fatalf("%s: validating left %v", name, found)
			}
		}
	}
}

// What validating refuses late, when everything of ours was provisioned, leaves nothing behind either.
func TestRefusedProvisioningIsStill(t *testing.T) {
	setSecrets(t)
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	adapted, err := adapt(config(app("rpc "+forbidden(t)), "x402 $1\ntls /no/such/cert.pem /no/such/key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provision(t, adapted); err == nil {
		t.Fatal("accepted")
	}
	if found := filesIn(t, data); len(found) > 0 {
		t.Errorf("left %v", found)
	}
}

// Starting does what validating did not: a ledger and a key are there afterwards, and a chain that does not answer is no
// reason not to start.
func TestStartingIsNotStill(t *testing.T) {
	dir := t.TempDir()
	text := rig.Caddyfile(rig.Options{RPC: "http://" + rig.FreeAddr(t)}, dir, rig.FreeAddr(t), "127.0.0.1:1")
	adapted, err := rig.Adapt(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := caddy.Load(adapted, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ledger.db")); err != nil {
		t.Error(err)
	}
	if len(filesIn(t, filepath.Join(dir, "storage"))) == 0 {
		t.Error("no key was made")
	}
}
