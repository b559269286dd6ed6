package kms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/signer/kms"
	"github.com/caddy-x402/caddy-x402/settlement/signer/kms/kmstest"
)

// What these tests ask is kmstest: a fake of AWS' API with a real key behind it, not AWS.
func TestMain(m *testing.M) {
	// What this machine has for AWS is nobody's business here.
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_SESSION_TOKEN": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_KMS": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m, devnet.LeakOptions()...)
}

var developer = devnet.Developer(4)

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

// words are those of a signer that asks server.
func words(server *kmstest.Server, more ...string) string {
	return "aws_kms " + kmstest.Alias + " {\nregion " + kmstest.Region + "\nendpoint " + server.URL() + "\n" + strings.Join(more, "\n") + "\n}"
}

// The Caddyfile's words lead to the key: provisioning asks nobody, opening does.
func TestSigns(t *testing.T) {
	server := kmstest.New(t, developer.Key)
	t.Setenv("T_ID", kmstest.AccessKeyID)
	t.Setenv("T_SECRET", kmstest.SecretAccessKey)
	t.Setenv("AWS_ACCESS_KEY_ID", kmstest.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", kmstest.SecretAccessKey)
	for name, words := range map[string]string{
		"credentials of the configuration": words(server, "access_key_id {env.T_ID}", "secret_access_key {env.T_SECRET}", "address "+developer.Address.Hex()),
		"credentials of the environment":   words(server),
	} {
		before := server.Hits()
		m, err := loaded(t, words)
		if err != nil {
			t.Fatal(err)
		}
		id, err := m.Join(caddymodule.SignerContext{})
		if err != nil || !strings.Contains(id, kmstest.Alias) {
			t.Errorf("%s: %q, %v", name, id, err)
		}
		if n := server.Hits() - before; n != 0 {
			t.Errorf("%s: provisioning made %d requests", name, n)
		}
		s, err := m.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digest := crypto.Keccak256Hash([]byte("transaction"))
		got, err := s.Sign(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		want, err := crypto.Sign(digest[:], developer.Key)
		if err != nil || !bytes.Equal(got, want) || s.Address() != developer.Address {
			t.Errorf("%s: %s signs %x, want %x of %s (%v)", name, s.Address(), got, want, developer.Address, err)
		}
		if err := s.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
}

// Whoever opens learns whether it is worth trying again.
func TestOpenFails(t *testing.T) {
	server := kmstest.New(t, developer.Key)
	t.Setenv("T_SECRET", kmstest.SecretAccessKey)
	good := words(server, "access_key_id "+kmstest.AccessKeyID, "secret_access_key {env.T_SECRET}")
	open := func(words string) error {
		m, err := loaded(t, words)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Open(t.Context())
		if s != nil {
			t.Errorf("%v", s)
		}
		return err
	}
	server.SetFault(func(kmstest.Request) *kmstest.Fault {
		return &kmstest.Fault{Status: http.StatusServiceUnavailable, Error: "DependencyTimeoutException"}
	})
	if err := open(good); !errors.Is(err, settlement.ErrUnavailable) || errors.Is(err, kms.ErrConfig) {
		t.Error(err)
	}
	server.SetFault(nil)
	server.SetKey(kmstest.KeyID, kmstest.Key{Private: developer.Key, State: "Disabled"})
	if err := open(good); !errors.Is(err, kms.ErrConfig) || errors.Is(err, settlement.ErrUnavailable) {
		t.Error(err)
	}
	server.SetKey(kmstest.KeyID, kmstest.Key{Private: developer.Key})
	other := words(server, "access_key_id "+kmstest.AccessKeyID, "secret_access_key {env.T_SECRET}", "address "+devnet.Developer(5).Address.Hex())
	if err := open(other); !errors.Is(err, kms.ErrConfig) || !strings.Contains(err.Error(), developer.Address.Hex()) {
		t.Error(err)
	}
}

// Mistakes are found by `caddy validate`, and secrets are not shown.
func TestProvisionRefuses(t *testing.T) {
	t.Setenv("T_EMPTY", "")
	t.Setenv("T_BLANK", " \n")
	t.Setenv("T_SECRET", "s3cr3t")
	const credentials = "access_key_id AKIA\nsecret_access_key {env.T_SECRET}"
	for words, want := range map[string]string{
		`aws_kms ""`:                                           "key is missing",
		"aws_kms {env.T_EMPTY}":                                "gives nothing",
		"aws_kms {env.T_NOT_SET}":                              "gives nothing",
		"aws_kms {env.T_BLANK}":                                "no key is named",
		"aws_kms arn:aws:s3:x:1:b":                             "not the ARN of a KMS key",
		"aws_kms alias/gas {\nregion Here!\n}":                 "write one such as",
		"aws_kms alias/gas {\nendpoint http://kms.internal\n}": "must have https",
		"aws_kms alias/gas {\naccess_key_id AKIA\n}":           "give both",
		"aws_kms alias/gas {\naccess_key_id AKIA\nsecret_access_key s3cr3t\n}":                         "must not stand in the configuration",
		"aws_kms alias/gas {\naccess_key_id AKIA\nsecret_access_key {env.T_EMPTY}\n}":                  "gives nothing",
		"aws_kms alias/gas {\naccess_key_id AKIA\nsecret_access_key {env.T_BLANK}\n}":                  "secret_access_key is empty",
		"aws_kms alias/gas {\n" + credentials + "\nsession_token s3cr3t\n}":                            "must not stand in the configuration",
		"aws_kms alias/gas {\n" + credentials + "\naddress 0x1234\n}":                                  "is not an address",
		"aws_kms alias/gas {\naddress 0x209693Bc6afc0C5328bA36FaF03C514EF312287c\n}":                   "checksum",
		"aws_kms alias/gas {\nendpoint http://localhost:1\nsession_token s3cr3t\n}":                    "without an access key",
		"aws_kms alias/gas {\naccess_key_id AKIA\nsecret_access_key s3cr3t{env.T_SECRET}\n}":           "must not stand in the configuration",
		"aws_kms arn:aws:kms:eu-central-1:111122223333:key/1234abcd {\nregion eu-central-2\n}":         "the key's ARN says eu-central-1",
		"aws_kms alias/gas {\nendpoint https://user:s3cr3t@kms.example\n}":                             "is no address",
		"aws_kms alias/gas {\nendpoint {env.T_NOT_SET}\nsecret_access_key {env.T_SECRET}\n}":           "gives nothing",
		"aws_kms alias/gas {\nregion eu-central-1\nendpoint \"\"\nsecret_access_key {env.T_SECRET}\n}": "give both",
	} {
		m, err := loaded(t, words)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want: %s", words, m, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows a secret: %v", words, err)
		}
	}
	for _, words := range []string{
		"aws_kms alias/gas", // the region may come from the environment that Caddy runs in
		"aws_kms alias/gas {\n" + credentials + "\nsession_token {env.T_SECRET}\nregion {env.T_SECRET}\n}",
		"aws_kms alias/gas {\nendpoint http://localhost:4566\naccess_key_id test\nsecret_access_key test\n}",
		"aws_kms mrk-1234abcd12ab34cd56ef1234567890ab {\ntimeout 2s\n}",
	} {
		if _, err := loaded(t, words); err != nil {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// A key that was not provisioned opens nothing.
func TestOpenWithoutProvisioning(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if s, err := new(Signer).Open(ctx); err == nil || s != nil {
		t.Errorf("%v, %v", s, err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	full := Signer{
		Key: "k", Region: "r", Endpoint: "e", AccessKeyID: "i", SecretAccessKey: "{env.S}", SessionToken: "{env.T}",
		Address: common.Address{1}.Hex(), Timeout: caddy.Duration(3 * time.Second),
	}
	for text, want := range map[string]Signer{
		"aws_kms alias/gas": {Key: "alias/gas"},
		"aws_kms k {\nregion r\nendpoint e\naccess_key_id i\nsecret_access_key {env.S}\nsession_token {env.T}\naddress " + full.Address + "\ntimeout 3s\n}": full,
	} {
		var s Signer
		if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil || !reflect.DeepEqual(s, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"aws_kms": "takes one key", "aws_kms a b": "takes one key", "aws_kms a {\nregion\n}": "argument", "aws_kms a {\nregion a b\n}": "argument",
		"aws_kms a {\nregion a\nregion b\n}": "twice", "aws_kms a {\nnonsense 1\n}": "no setting", "aws_kms a {\ntimeout soon\n}": "not a duration",
		"aws_kms a {\ntimeout 0s\n}": "not a duration",
	} {
		var s Signer
		if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
