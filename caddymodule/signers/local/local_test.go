package local

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/devnet"
)

var (
	developer = devnet.Developer(3)
	secret    = hex.EncodeToString(crypto.FromECDSA(developer.Key))
)

// loaded does with a Caddyfile's words what a wallet would: it adapts, loads and provisions the module.
func loaded(t *testing.T, words string) (caddymodule.SignerModule, error) {
	t.Helper()
	d := caddyfile.NewTestDispenser("signer " + words)
	d.Next()
	raw, err := caddymodule.ParseSigner(d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	var holder struct {
		SignerRaw json.RawMessage `caddy:"namespace=x402.signers inline_key=signer"`
	}
	holder.SignerRaw = raw
	m, err := ctx.LoadModule(&holder, "SignerRaw")
	if err != nil {
		return nil, err
	}
	return m.(caddymodule.SignerModule), nil
}

func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("0x"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("T_GAS", secret)
	for words, local := range map[string]bool{"key {env.T_GAS}": false, "key {file." + path + "}": false, "key " + secret: true} {
		m, err := loaded(t, words)
		if err != nil {
			t.Fatal(err)
		}
		name, err := m.Join(caddymodule.SignerContext{Local: local})
		if err != nil || name != "key "+developer.Address.Hex() {
			t.Errorf("%s: %q, %v", words, name, err)
		}
		s, err := m.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digest := crypto.Keccak256Hash([]byte("transaction"))
		signature, err := s.Sign(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		by, err := crypto.SigToPub(digest[:], signature)
		if err != nil || crypto.PubkeyToAddress(*by) != developer.Address || s.Address() != developer.Address {
			t.Errorf("%s: %s has signed as %s, %v", words, crypto.PubkeyToAddress(*by), s.Address(), err)
		}
	}
}

// A key that everybody who sees the configuration could use is refused, and no error shows one.
func TestKeyRefused(t *testing.T) {
	t.Setenv("T_EMPTY", "")
	t.Setenv("T_SHORT", secret[1:])
	for words, want := range map[string]string{
		"key " + secret:             "must not stand in the configuration",
		"key {env.T_EMPTY}":         "gives nothing",
		"key {env.T_NOT_SET}":       "gives nothing",
		"key {env.T_SHORT}":         "64 hexadecimal digits",
		"key {env." + secret + "}":  "gives nothing",
		"key {file./no/such/place}": "gives nothing",
	} {
		m, err := loaded(t, words)
		if err != nil {
			t.Fatal(err)
		}
		name, err := m.Join(caddymodule.SignerContext{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret[1:]) {
			t.Errorf("%q: %v, want: %s", name, err, want)
		}
		if s, err := m.Open(t.Context()); err == nil {
			t.Errorf("opened %v", s)
		}
	}
	if _, err := loaded(t, `key ""`); err == nil || !strings.Contains(err.Error(), "key is missing") {
		t.Errorf("no key: %v", err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"key": "takes one key", "key a b": "takes one key", "key a {\nregion x\n}": "no settings",
	} {
		if err := new(Key).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
