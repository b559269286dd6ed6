package cdp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-x402/caddy-x402/settlement/facilitator/cdp"
)

const keyID = "organizations/0a1b/apiKeys/2c3d"

var now = time.Unix(1_900_000_000, 0)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// platform checks a request as the Coinbase Developer Platform documents it.
type platform struct {
	public crypto.PublicKey
	alg    string
	nonces []string
}

func (p *platform) check(t *testing.T, r *http.Request) {
	t.Helper()
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		t.Fatal("no bearer token")
	}
	var claims struct {
		jwt.RegisteredClaims
		URIs []string `json:"uris"`
	}
	parsed, err := jwt.ParseWithClaims(bearer, &claims, func(*jwt.Token) (any, error) { return p.public, nil },
		jwt.WithValidMethods([]string{p.alg}), jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithIssuedAt(),
		jwt.WithIssuer("cdp"), jwt.WithAudience("cdp_service"), jwt.WithSubject(keyID), jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired())
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Header["kid"] != keyID || parsed.Header["typ"] != "JWT" {
		t.Errorf("header %v", parsed.Header)
	}
	nonce, _ := parsed.Header["nonce"].(string)
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(nonce) || slices.Contains(p.nonces, nonce) {
		t.Errorf("nonce %q", nonce)
	}
	p.nonces = append(p.nonces, nonce)
	if ttl := claims.ExpiresAt.Sub(claims.IssuedAt.Time); ttl != 2*time.Minute || !claims.NotBefore.Equal(now) {
		t.Errorf("good for %s, from %s", ttl, claims.NotBefore)
	}
	if want := []string{r.Method + " " + r.Host + r.URL.EscapedPath()}; !slices.Equal(claims.URIs, want) {
		t.Errorf("uris %q, want %q", claims.URIs, want)
	}
	// The audience is a list, as the platform has it, not a string.
	payload := must(base64.RawURLEncoding.DecodeString(strings.Split(bearer, ".")[1]))
	if !strings.Contains(string(payload), `"aud":["cdp_service"]`) {
		t.Errorf("claims %s", payload)
	}
}

// Each request has a token of its own, for its method and address, of both kinds of keys, in all their spellings.
func TestTokens(t *testing.T) {
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	sec1, pkcs8 := pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey))), pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ecKey)))
	for name, tc := range map[string]struct {
		secret string
		public crypto.PublicKey
		alg    string
	}{
		"Ed25519":             {base64.StdEncoding.EncodeToString(edKey), edPublic, "EdDSA"},
		"Ed25519, line break": {base64.StdEncoding.EncodeToString(edKey) + "\n", edPublic, "EdDSA"},
		"Ed25519 in PEM":      {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey))), edPublic, "EdDSA"},
		"SEC 1":               {sec1, &ecKey.PublicKey, "ES256"},
		"PKCS #8":             {pkcs8, &ecKey.PublicKey, "ES256"},
		"on one line":         {strings.ReplaceAll(sec1, "\n", `\n`), &ecKey.PublicKey, "ES256"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := cdp.NewKey(keyID, tc.secret, func() time.Time { return now })
			if err != nil {
				t.Fatal(err)
			}
			p := &platform{public: tc.public, alg: tc.alg}
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { p.check(t, r) }))
			defer server.Close()
			for _, path := range []string{"/platform/v2/x402/verify", "/platform/v2/x402/settle", "/platform/v2/x402/settle", "/platform/v2/x402/supported?x=1"} {
				r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, nil))
				if err := key.Authorize(r); err != nil {
					t.Fatal(err)
				}
				resp, err := server.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			if len(p.nonces) != 4 {
				t.Errorf("%d requests were checked", len(p.nonces))
			}
		})
	}
}

// What is no key is refused, and not shown.
func TestWrongKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mixed := slices.Clone(ed)
	mixed[63] ^= 1
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	for name, secret := range map[string]string{
		"nothing":            "",
		"words":              "not a key, but a sentence",
		"half a key":         base64.StdEncoding.EncodeToString(ed[:32]),
		"two halves":         base64.StdEncoding.EncodeToString(mixed),
		"another curve":      pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p384))),
		"a certificate":      pemOf("CERTIFICATE", []byte{1, 2, 3}),
		"PEM that is broken": "-----BEGIN EC PRIVATE KEY-----\nabc",
	} {
		_, err := cdp.NewKey(keyID, secret, nil)
		if !errors.Is(err, cdp.ErrSecret) || secret != "" && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cdp.NewKey(" ", base64.StdEncoding.EncodeToString(ed), nil); !errors.Is(err, cdp.ErrID) {
		t.Errorf("no id: %v", err)
	}
}
