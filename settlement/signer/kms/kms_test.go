package kms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/settlement/signer/kms/kmstest"
)

// What these tests ask is kmstest: a fake of AWS' API with a real key behind it, not AWS.
func TestMain(m *testing.M) {
	// What this machine has for AWS is nobody's business here.
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_SESSION_TOKEN": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_KMS": "", "AWS_MAX_ATTEMPTS": "7",
	} {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m, devnet.LeakOptions()...)
}

func newKey256k1(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// configOf leads to s, with no time between tries.
func configOf(s *kmstest.Server) Config {
	return Config{
		Key: kmstest.Alias, Region: kmstest.Region, Endpoint: s.URL(),
		AccessKeyID: kmstest.AccessKeyID, SecretAccessKey: kmstest.SecretAccessKey,
		pause: func(int) time.Duration { return 0 },
	}
}

func opened(t testing.TB, c Config) *Signer {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func digest(i int) common.Hash {
	return crypto.Keccak256Hash(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// A signature from the service, with high s or low, is the very one that the key itself would have made here.
func TestSignsAsTheKeyItself(t *testing.T) {
	key := newKey256k1(t)
	local, err := signer.NewLocal(key)
	if err != nil {
		t.Fatal(err)
	}
	server := kmstest.New(t, key)
	for name, s := range map[string]kmstest.S{"either s": kmstest.EitherS, "low s": kmstest.LowS, "high s": kmstest.HighS} {
		server.SetKey(kmstest.KeyID, kmstest.Key{Private: key, S: s})
		k := opened(t, configOf(server))
		if k.Address() != local.Address() {
			t.Fatalf("the address is %s, want %s", k.Address(), local.Address())
		}
		for i := range 20 {
			got, err := k.Sign(t.Context(), digest(i))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if want, err := local.Sign(t.Context(), digest(i)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %x, want %x (%v)", name, got, want, err)
			}
		}
	}
}

// The service is asked for what it should be asked for: the public key once, a signature that is not given, and then one
// request for each signature, of the digest as it is.
func TestRequests(t *testing.T) {
	server := kmstest.New(t, newKey256k1(t))
	k := opened(t, configOf(server))
	if _, err := k.Sign(t.Context(), digest(1)); err != nil {
		t.Fatal(err)
	}
	requests := server.Requests()
	if len(requests) != 3 {
		t.Fatalf("%d requests: %+v", len(requests), requests)
	}
	for i, want := range []struct {
		op     string
		dryRun bool
	}{{"GetPublicKey", false}, {"Sign", true}, {"Sign", false}} {
		r := requests[i]
		if r.Op != want.op || r.In.DryRun != want.dryRun || r.In.KeyID != kmstest.Alias {
			t.Errorf("request %d is %s of %s, dry %t", i, r.Op, r.In.KeyID, r.In.DryRun)
		}
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="+kmstest.AccessKeyID+"/") {
			t.Errorf("request %d is not signed: %q", i, r.Header.Get("Authorization"))
		}
		if r.Op == "Sign" && (r.In.MessageType != "DIGEST" || r.In.SigningAlgorithm != "ECDSA_SHA_256" || len(r.In.Message) != 32) {
			t.Errorf("request %d signs %+v", i, r.In)
		}
	}
	if want := digest(1); !bytes.Equal(requests[2].In.Message, want[:]) {
		t.Errorf("signed was %x", requests[2].In.Message)
	}
}

// A key has several names, a region and credentials several sources.
func TestWaysToSay(t *testing.T) {
	key := newKey256k1(t)
	server := kmstest.New(t, key)
	aliasARN := strings.Replace(kmstest.ARN(""), "key/", kmstest.Alias, 1)
	for name, change := range map[string]func(*testing.T, *Config){
		"id":        func(_ *testing.T, c *Config) { c.Key = kmstest.KeyID },
		"ARN":       func(_ *testing.T, c *Config) { c.Key, c.Region = kmstest.ARN(kmstest.KeyID), "" },
		"alias ARN": func(_ *testing.T, c *Config) { c.Key, c.Region = aliasARN, "" },
		"region of the environment": func(t *testing.T, c *Config) {
			c.Region = ""
			t.Setenv("AWS_REGION", kmstest.Region)
		},
		"credentials of the environment": func(t *testing.T, c *Config) {
			t.Setenv("AWS_ACCESS_KEY_ID", c.AccessKeyID)
			t.Setenv("AWS_SECRET_ACCESS_KEY", c.SecretAccessKey)
			c.AccessKeyID, c.SecretAccessKey = "", ""
		},
		"temporary credentials": func(t *testing.T, c *Config) {
			c.SessionToken = "token"
			server.SetSessionToken("token")
			t.Cleanup(func() { server.SetSessionToken("") })
		},
		"the address that it has": func(_ *testing.T, c *Config) { c.Address = crypto.PubkeyToAddress(key.PublicKey) },
	} {
		t.Run(name, func(t *testing.T) {
			c := configOf(server)
			change(t, &c)
			k := opened(t, c)
			if _, err := k.Sign(t.Context(), digest(1)); err != nil {
				t.Error(err)
			}
		})
	}
}

// p256 is the public key of a curve that wallets don't have.
func p256(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What stays wrong until somebody does something is told at once, with what to do, and is not "try again".
func TestRefusedAtOpening(t *testing.T) {
	key := newKey256k1(t)
	for name, tc := range map[string]struct {
		key    kmstest.Key
		change func(*Config)
		say    []string
	}{
		"another curve": {
			kmstest.Key{Spec: "ECC_NIST_P256", Public: p256(t)},
			nil,
			[]string{"ECC_NIST_P256", "needs ECC_SECG_P256K1 for SIGN_VERIFY", "aws kms create-key --key-spec ECC_SECG_P256K1"},
		},
		"RSA": {kmstest.Key{Spec: "RSA_2048", Public: []byte("RSA")}, nil, []string{"RSA_2048", "aws kms create-key"}},
		"for another use": {
			kmstest.Key{Usage: "KEY_AGREEMENT"}, nil, []string{"for KEY_AGREEMENT", "SIGN_VERIFY"},
		},
		"disabled":         {kmstest.Key{State: "Disabled"}, nil, []string{"DisabledException", "aws kms enable-key"}},
		"about to go":      {kmstest.Key{State: "PendingDeletion"}, nil, []string{"pending deletion", "aws kms cancel-key-deletion"}},
		"no reading":       {kmstest.Key{Denied: []string{"GetPublicKey"}}, nil, []string{"AccessDeniedException", "allow kms:GetPublicKey and kms:Sign"}},
		"no signing":       {kmstest.Key{Denied: []string{"Sign"}}, nil, []string{"AccessDeniedException", "allow kms:GetPublicKey and kms:Sign"}},
		"no such key":      {kmstest.Key{}, func(c *Config) { c.Key = "alias/other" }, []string{"NotFoundException", "alias/other", "check the key's id"}},
		"no such secret":   {kmstest.Key{}, func(c *Config) { c.SecretAccessKey = "s3cr3t" }, []string{"InvalidSignatureException", "check the credentials"}},
		"no such user":     {kmstest.Key{}, func(c *Config) { c.AccessKeyID = "AKIA" }, []string{"UnrecognizedClientException", "check the credentials"}},
		"the wrong region": {kmstest.Key{}, func(c *Config) { c.Region = "eu-west-1" }, []string{"check the credentials"}},
		"no region":        {kmstest.Key{}, func(c *Config) { c.Region = "" }, []string{"region", "AWS_REGION"}},
		"another account": {
			kmstest.Key{},
			func(c *Config) { c.Address = common.HexToAddress("0x01") },
			[]string{crypto.PubkeyToAddress(key.PublicKey).Hex(), "should be 0x0000000000000000000000000000000000000001"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := kmstest.New(t, key)
			tc.key.Private = key
			server.SetKey(kmstest.KeyID, tc.key)
			c := configOf(server)
			if tc.change != nil {
				tc.change(&c)
			}
			k, err := Open(t.Context(), c)
			if k != nil || !errors.Is(err, ErrConfig) || errors.Is(err, settlement.ErrUnavailable) {
				t.Fatalf("%v, %v", k, err)
			}
			for _, want := range tc.say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say: %s", err, want)
				}
			}
			if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), kmstest.SecretAccessKey) {
				t.Errorf("the error shows the secret: %v", err)
			}
			if n := len(server.Requests()); n > 2 {
				t.Errorf("%d requests for what can't become better", n)
			}
		})
	}
}

// The same, of a key that has signed before.
func TestRefusedWhileSigning(t *testing.T) {
	key := newKey256k1(t)
	server := kmstest.New(t, key)
	k := opened(t, configOf(server))
	for name, tc := range map[string]struct {
		key kmstest.Key
		say string
	}{
		"disabled":    {kmstest.Key{State: "Disabled"}, "aws kms enable-key"},
		"about to go": {kmstest.Key{State: "PendingDeletion"}, "aws kms cancel-key-deletion"},
		"no signing":  {kmstest.Key{Denied: []string{"Sign"}}, "allow kms:GetPublicKey and kms:Sign"},
	} {
		tc.key.Private = key
		server.SetKey(kmstest.KeyID, tc.key)
		before := server.Count("Sign")
		got, err := k.Sign(t.Context(), digest(1))
		if got != nil || !errors.Is(err, ErrConfig) || errors.Is(err, settlement.ErrUnavailable) || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
		if n := server.Count("Sign") - before; n != 1 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
	server.SetKey(kmstest.KeyID, kmstest.Key{Private: key})
	if _, err := k.Sign(t.Context(), digest(1)); err != nil {
		t.Errorf("after all was put right: %v", err)
	}
}

// An alias that leads to another key does not make another wallet of this one.
func TestAliasMoves(t *testing.T) {
	server := kmstest.New(t, newKey256k1(t))
	k := opened(t, configOf(server))
	const other = "99999999-12ab-34cd-56ef-1234567890ab"
	server.SetKey(other, kmstest.Key{Private: newKey256k1(t)})
	server.SetAlias(kmstest.Alias, other)
	got, err := k.Sign(t.Context(), digest(1))
	if got != nil || !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), kmstest.ARN(other)) {
		t.Errorf("%x, %v", got, err)
	}
}

// troubles are what goes away by itself.
var troubles = map[string]kmstest.Fault{
	"throttled": {
		Status: http.StatusBadRequest, Error: "ThrottlingException",
		Text: "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
	},
	"an internal error":        {Status: http.StatusInternalServerError, Error: "KMSInternalException"},
	"no key at hand":           {Status: http.StatusInternalServerError, Error: "KeyUnavailableException"},
	"a dependency":             {Status: http.StatusServiceUnavailable, Error: "DependencyTimeoutException"},
	"a bad gateway":            {Status: http.StatusBadGateway, Body: []byte("<html>bad gateway</html>")},
	"a page":                   {Status: http.StatusOK, Body: []byte("<html>please log in</html>")},
	"half an answer":           {Status: http.StatusOK, Body: []byte(`{"KeyId":"arn`)},
	"something else":           {Status: http.StatusOK, Body: []byte(`["KeyId"]`)},
	"a connection that breaks": {Drop: true},
}

// Each is asked for again, three times at most, whatever the environment says.
func TestTriesAgain(t *testing.T) {
	key := newKey256k1(t)
	server := kmstest.New(t, key)
	k := opened(t, configOf(server))
	for name, f := range troubles {
		server.SetFault(nil)
		failing := func(times int) {
			server.SetFault(func(kmstest.Request) *kmstest.Fault {
				if times--; times >= 0 {
					return &f
				}
				return nil
			})
		}
		failing(2)
		before := server.Count("Sign")
		if _, err := k.Sign(t.Context(), digest(1)); err != nil {
			t.Errorf("%s, twice: %v", name, err)
		}
		failing(1000)
		got, err := k.Sign(t.Context(), digest(1))
		if got != nil || !errors.Is(err, settlement.ErrUnavailable) || errors.Is(err, ErrConfig) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
		if n := server.Count("Sign") - before; n != 6 {
			t.Errorf("%s: asked %d times, want 3 and 3", name, n)
		}
		if got, err := Open(t.Context(), configOf(server)); got != nil || !errors.Is(err, settlement.ErrUnavailable) || errors.Is(err, ErrConfig) {
			t.Errorf("opening with %s: %v, %v", name, got, err)
		}
	}
	server.SetFault(nil)
	if _, err := k.Sign(t.Context(), digest(1)); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// What the service says is a signature is believed only if it is one.
func TestLiesAreSeen(t *testing.T) {
	key := newKey256k1(t)
	server := kmstest.New(t, key)
	k := opened(t, configOf(server))
	answer := func(signature any) []byte {
		b, err := json.Marshal(map[string]any{"KeyId": kmstest.ARN(kmstest.KeyID), "Signature": signature, "SigningAlgorithm": "ECDSA_SHA_256"})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := digest(1)
	local, err := crypto.Sign(one[:], key)
	if err != nil {
		t.Fatal(err)
	}
	good, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(local[:32]), new(big.Int).SetBytes(local[32:64])})
	if err != nil {
		t.Fatal(err)
	}
	server.SetFault(func(kmstest.Request) *kmstest.Fault { return &kmstest.Fault{Status: http.StatusOK, Body: answer(good)} })
	if got, err := k.Sign(t.Context(), digest(1)); err != nil {
		t.Errorf("what the lies are made of: %x, %v", got, err)
	}
	for name, body := range map[string][]byte{
		"nothing":               nil,
		"no signature":          []byte(`{"KeyId":"x"}`),
		"an empty object":       []byte(`{}`),
		"null":                  []byte(`null`),
		"an empty one":          answer([]byte{}),
		"zeros":                 answer(make([]byte, 72)),
		"not DER, 65 bytes":     answer(local),
		"a number":              answer(1),
		"no base64":             answer("%%%"),
		"DER with r and s of 1": answer([]byte{0x30, 6, 2, 1, 1, 2, 1, 1}),
		"endless":               append([]byte(`{"KeyId":"`), bytes.Repeat([]byte("x"), 1<<20)...),
		"too long":              append(bytes.Repeat([]byte(" "), 1<<17), answer(good)...),
	} {
		server.SetFault(func(kmstest.Request) *kmstest.Fault { return &kmstest.Fault{Status: http.StatusOK, Body: body} })
		if got, err := k.Sign(t.Context(), digest(1)); got != nil || err == nil {
			t.Errorf("%s: %x, %v", name, got, err)
		} else if len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	server.SetFault(nil)
	// Another key, under the name and the public key of ours.
	spki := server.PublicKey(kmstest.KeyID)
	server.SetKey(kmstest.KeyID, kmstest.Key{Private: newKey256k1(t), Public: spki})
	if got, err := k.Sign(t.Context(), digest(1)); got != nil || !errors.Is(err, signer.ErrSignature) || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("another key's signature: %x, %v", got, err)
	}
	// A key whose public part is none.
	for name, public := range map[string][]byte{"no key": {}, "garbage": []byte("garbage"), "another curve's": p256(t)} {
		server.SetKey(kmstest.KeyID, kmstest.Key{Private: key, Public: public})
		if got, err := Open(t.Context(), configOf(server)); got != nil || !errors.Is(err, settlement.ErrUnavailable) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// The credentials go to nobody else: a redirect is not followed.
func TestRedirect(t *testing.T) {
	server, elsewhere := kmstest.New(t, newKey256k1(t)), kmstest.New(t, newKey256k1(t))
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		server.SetFault(func(kmstest.Request) *kmstest.Fault {
			return &kmstest.Fault{Status: status, Location: elsewhere.URL(), Body: []byte("{}")}
		})
		if k, err := Open(t.Context(), configOf(server)); k != nil || !errors.Is(err, settlement.ErrUnavailable) {
			t.Errorf("%d: %v, %v", status, k, err)
		}
	}
	if n := elsewhere.Hits(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// A service that does not answer is waited for as long as was said, and whoever asks may leave before.
func TestSlow(t *testing.T) {
	server := kmstest.New(t, newKey256k1(t))
	c := configOf(server)
	c.Timeout = 600 * time.Millisecond
	k := opened(t, c)
	patient := opened(t, configOf(server))
	hang := func(kmstest.Request) *kmstest.Fault { return &kmstest.Fault{Hang: true} }
	server.SetFault(hang)
	begun := time.Now()
	got, err := k.Sign(t.Context(), digest(1))
	if got != nil || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("%x, %v", got, err)
	}
	if took := time.Since(begun); took < 150*time.Millisecond || took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	before := server.Count("Sign")
	server.SetFault(func(r kmstest.Request) *kmstest.Fault {
		cancel()
		return hang(r)
	})
	if got, err := patient.Sign(ctx, digest(1)); got != nil || !errors.Is(err, context.Canceled) || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("who has left: %x, %v", got, err)
	}
	if n := server.Count("Sign") - before; n != 1 {
		t.Errorf("for who has left it was asked %d times", n)
	}
	if got, err := patient.Sign(ctx, digest(1)); got != nil || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("who had left before: %x, %v", got, err)
	}
	// One try that hangs does not take the time of all.
	once := true
	server.SetFault(func(r kmstest.Request) *kmstest.Fault {
		if !once {
			return nil
		}
		once = false
		return hang(r)
	})
	if _, err := k.Sign(t.Context(), digest(1)); err != nil {
		t.Errorf("one try that hangs: %v", err)
	}
}

// Nobody listens.
func TestUnreachable(t *testing.T) {
	c := Config{
		Key: kmstest.KeyID, Region: kmstest.Region, Endpoint: "http://127.0.0.1:1", AccessKeyID: "a", SecretAccessKey: "s3cr3t",
		pause: func(int) time.Duration { return 0 },
	}
	k, err := Open(t.Context(), c)
	if k != nil || !errors.Is(err, settlement.ErrUnavailable) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("%v, %v", k, err)
	}
}

// No credentials anywhere: a machine that has just started may get them later.
func TestNoCredentials(t *testing.T) {
	server := kmstest.New(t, newKey256k1(t))
	c := configOf(server)
	c.AccessKeyID, c.SecretAccessKey = "", ""
	k, err := Open(t.Context(), c)
	if k != nil || !errors.Is(err, settlement.ErrUnavailable) || !strings.Contains(err.Error(), "set AWS_ACCESS_KEY_ID") {
		t.Errorf("%v, %v", k, err)
	}
	if n := len(server.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestConcurrent(t *testing.T) {
	key := newKey256k1(t)
	local, err := signer.NewLocal(key)
	if err != nil {
		t.Fatal(err)
	}
	k := opened(t, configOf(kmstest.New(t, key)))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			got, err := k.Sign(t.Context(), digest(i))
			if want, wantErr := local.Sign(t.Context(), digest(i)); err != nil || wantErr != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v; want %x, %v", got, err, want, wantErr)
			}
		})
	}
	wg.Wait()
}

// A stranger's text in an error is cut, and can't do anything to a terminal.
func TestErrorsAreClean(t *testing.T) {
	server := kmstest.New(t, newKey256k1(t))
	k := opened(t, configOf(server))
	text := "no\x1b[31m\n" + strings.Repeat("x", 10_000)
	array, err := json.Marshal([]string{text})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]kmstest.Fault{
		"known":    {Status: http.StatusBadRequest, Error: "AccessDeniedException", Text: text},
		"unknown":  {Status: http.StatusBadRequest, Error: "Whatever\x1b[31m", Text: text},
		"an array": {Status: http.StatusOK, Body: array},
	} {
		server.SetFault(func(kmstest.Request) *kmstest.Fault { return &f })
		_, err := k.Sign(t.Context(), digest(1))
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	server := kmstest.New(t, newKey256k1(t))
	server.SetSessionToken("t0k3n")
	c := configOf(server)
	c.SessionToken = "t0k3n"
	k := opened(t, c)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("signer", k))
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("signer", k))
	encoded, err := json.Marshal([]any{c, k})
	if err != nil {
		t.Fatal(err)
	}
	text := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{c, &c, k, []Config{c}, []*Signer{k}} {
			text += fmt.Sprintf(verb, v)
		}
	}
	if strings.Contains(text, kmstest.SecretAccessKey) || strings.Contains(text, "t0k3n") || strings.Contains(text, fmt.Sprintf("%x", kmstest.SecretAccessKey)) {
		t.Errorf("shows a secret: %s", text)
	}
	if !strings.Contains(text, kmstest.Alias) || !strings.Contains(text, k.Address().Hex()) {
		t.Errorf("does not say what it is: %s", text)
	}
}
