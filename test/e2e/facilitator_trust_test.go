package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Each request to the Coinbase Developer Platform carries a token of its own that is good for its method and address, with
// keys of both kinds; what has none, or another's, is refused there.
func TestFacilitatorOfCoinbase(t *testing.T) {
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	for _, tc := range []struct {
		alg, secret string
		public      crypto.PublicKey
	}{
		{"EdDSA", base64.StdEncoding.EncodeToString(edKey), edPublic},
		{"ES256", strings.ReplaceAll(inPEM, "\n", `\n`), &ecKey.PublicKey},
	} {
		t.Run(tc.alg, func(t *testing.T) {
			t.Setenv("E2E_CDP_SECRET", tc.secret)
			r := rig.New(t, rig.Options{})
			f := facilitator.New(t, r.Chain.URL(), devnet.Developer(3).Key)
			var wrong atomic.Value
			f.Behave(func(c *facilitator.Call) facilitator.Reply {
				if err := coinbase(c, strings.TrimPrefix(f.URL(), "http://"), tc.alg, tc.public); err != nil {
					wrong.Store(err.Error())
					return facilitator.Reply{Status: http.StatusUnauthorized}
				}
				return c.Honest()
			})
			r.Load(rig.Options{Settler: "facilitator cdp " + f.URL() + " {\nkey_id key-1\nkey_secret {env.E2E_CDP_SECRET}\nverify\n}"})
			a, _ := rig.NewBuyer(t, 1).Buy(r.URL("/"))
			if a.Status != http.StatusOK || r.Earned() != cent || wrong.Load() != nil {
				t.Errorf("%d %s, earned %d: %v", a.Status, a.Body, r.Earned(), wrong.Load())
			}
			if len(f.Requests("/supported")) == 0 || len(f.Requests("/verify")) != 1 || len(f.Requests("/settle")) != 1 {
				t.Error("not everything was asked")
			}
		})
	}
}

// coinbase checks the token of a request as the platform does.
func coinbase(c *facilitator.Call, host, alg string, public crypto.PublicKey) error {
	var claims struct {
		jwt.RegisteredClaims
		URIs []string `json:"uris"`
	}
	_, err := jwt.ParseWithClaims(strings.TrimPrefix(c.Header.Get("Authorization"), "Bearer "), &claims,
		func(*jwt.Token) (any, error) { return public, nil }, jwt.WithValidMethods([]string{alg}),
		jwt.WithIssuer("cdp"), jwt.WithAudience("cdp_service"), jwt.WithSubject("key-1"), jwt.WithExpirationRequired())
	if err != nil {
		return err
	}
	if want := c.Method + " " + host + c.Path; !slices.Equal(claims.URIs, []string{want}) {
		return fmt.Errorf("the token is for %q, the request is %q", claims.URIs, want)
	}
	return nil
}

// A payment that was begun goes on as it was offered, whatever the price is by then; after a reload and without its payer it
// is found on the chain.
func TestFacilitatorAfterAReload(t *testing.T) {
	r, f, o := facilitated(t, rig.Options{App: strings.Replace(quick, "3s", "1s", 1)})
	onSettle(f, func(*facilitator.Call) facilitator.Reply { return facilitator.Reply{Drop: true} })
	b := rig.NewBuyer(t, 1)
	url := r.URL("/dear")
	header := b.Sign(b.Offer(url), 0)
	putOff(t, b.Get(url, x402.HeaderSignature, header))
	dear := o
	dear.Site = strings.Replace(rig.DefaultSite, "$0.01", "$0.02", 1)
	r.Load(dear)
	calls := make(chan *facilitator.Call, 8)
	onSettle(f, func(c *facilitator.Call) facilitator.Reply {
		calls <- c
		return facilitator.Reply{Drop: true}
	})
	putOff(t, b.Get(url, x402.HeaderSignature, header))
	c := <-calls
	var requirements struct {
		Amount string `json:"amount"`
	}
	if err := json.Unmarshal(c.Requirements, &requirements); err != nil || requirements.Amount != fmt.Sprint(cent) {
		t.Errorf("requirements %s, %v", c.Requirements, err)
	}
	if all := f.Requests("/settle"); !bytes.Equal(all[0].Body, all[len(all)-1].Body) {
		t.Error("what is sent after the reload differs")
	}
	unplug(t)
	if _, err := c.Send(); err != nil { // while nobody of ours is there
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.Earned() == cent })
	r.Load(o)
	id := mustDecode(t, header).Authorization.ID(devnet.ChainID, devnet.TokenAddress)
	s := openLedger(t, r)
	waitFor(t, func() bool {
		p, err := s.ByAuthorization(t.Context(), id)
		return err == nil && p.Settlement == ledger.Settled
	})
	if a := b.Get(url, x402.HeaderSignature, header); a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("%d %s, %d upstream calls, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
	unplug(t)
	verified(t, r)
}

func mustDecode(t *testing.T, header string) *x402.Payload {
	t.Helper()
	p, err := x402.DecodePayload(header)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// verified demands that the ledger of a Caddy that has ended is whole, notes of facilitators and all.
func verified(t *testing.T, r *rig.Rig) {
	t.Helper()
	s := openLedger(t, r)
	report, err := ledger.Verify(t.Context(), s, ledger.VerifyOptions{})
	if err != nil || report.Found > 0 || report.Payments == 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// With trust_facilitator its word counts at once, for what it is worth.
func TestFacilitatorTrusted(t *testing.T) {
	r, f, _ := facilitated(t, rig.Options{App: quick}, "trust_facilitator")
	onSettle(f, func(c *facilitator.Call) facilitator.Reply { return c.Refuse("payer_is_sanctioned", common.Hash{}) })
	b := rig.NewBuyer(t, 1)
	a, _ := b.Buy(r.URL("/"))
	if a.Status != http.StatusPaymentRequired || !strings.Contains(a.Body, "payer_is_sanctioned") || r.Upstream.Calls() != 0 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	onSettle(f, func(c *facilitator.Call) facilitator.Reply {
		hash, err := c.Send()
		if err != nil {
			t.Error(err)
		}
		return c.Success(hash)
	})
	r.Chain.Stall()
	defer r.Chain.Resume()
	if a, _ = b.Buy(r.URL("/at-once")); a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != 0 {
		t.Errorf("%d %s, earned %d", a.Status, a.Body, r.Earned())
	}
	r.Chain.Resume()
	waitFor(t, func() bool { return r.Earned() == cent })
}

// Neither our credentials nor what a payer sent gets into logs, the ledger or answers, although the facilitator repeats all of it
// wherever it can.
func TestFacilitatorRepeatsSecrets(t *testing.T) {
	const bearer, key = "mX4tQ9vLz2RkW7nPc5BsYd8f", "H3gJ6kTq1ZxNu0VeCw4oRyAp"
	t.Setenv("E2E_BEARER", bearer)
	t.Setenv("E2E_KEY", key)
	r, f, o := facilitated(t, rig.Options{App: strings.Replace(quick, "3s", "1s", 1)},
		"bearer {env.E2E_BEARER}", "header X-Api-Key {env.E2E_KEY}")
	log := filepath.Join(r.Dir, "default.log")
	unplug(t)
	loadText(t, regexp.MustCompile(`(?s)log default \{.*?\n\t\}`).ReplaceAllLiteralString(r.Caddyfile(o),
		"log default {\n level DEBUG\n output file "+log+"\n format json\n }"))
	onSettle(f, func(c *facilitator.Call) facilitator.Reply {
		all := fmt.Sprintf("%s %s %s", c.Header.Get("Authorization"), c.Header.Get("X-Api-Key"), c.Body)
		switch c.N {
		case 1:
			return facilitator.JSON(http.StatusOK, map[string]any{"success": false, "errorReason": all, "errorMessage": all})
		case 2:
			return facilitator.Reply{Status: http.StatusInternalServerError, Body: all}
		}
		return facilitator.Reply{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://192.0.2.1/" + key}}}
	})
	secrets := leaks{}
	secrets.add("the bearer token", bearer)
	secrets.add("the key", key)
	b := rig.NewBuyer(t, 1)
	url := r.URL("/told")
	header := b.Sign(b.Offer(url), 0)
	secrets.payment(t, "the payment", header)
	var told bytes.Buffer
	for range 3 {
		a := b.Get(url, x402.HeaderSignature, header)
		putOff(t, a)
		_, _ = fmt.Fprintln(&told, a.Header, a.Body)
	}
	if n := len(f.Requests("/settle")); n != 3 {
		t.Errorf("it was asked %d times", n)
	}
	time.Sleep(100 * time.Millisecond) // what is logged last
	unplug(t)
	places := map[string][]byte{"answers": told.Bytes()}
	for _, name := range []string{"default.log", "ledger.db"} {
		text, err := os.ReadFile(filepath.Join(r.Dir, name))
		if err != nil || len(text) == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		places[name] = text
	}
	for place, text := range places {
		for _, name := range secrets.find(text) {
			t.Errorf("%s: %s", place, name)
		}
	}
	if !bytes.Contains(places["default.log"], []byte("a facilitator does not settle a payment")) {
		t.Error("the log says nothing of it")
	}
	verified(t, r)
}
