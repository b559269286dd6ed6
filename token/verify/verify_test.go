package verify

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-x402/caddy-x402/token"
)

const site = "https://api.example.com"

var start = time.Unix(1_800_000_000, 0)

// wall is a paywall as its upstream sees it: keys that it shows, and assertions.
type wall struct {
	t       *testing.T
	server  *httptest.Server
	ring    atomic.Pointer[token.Keyring]
	fetches atomic.Int64
	broken  atomic.Bool
	now     atomic.Int64 // nanoseconds after start
}

func newKey(t *testing.T) token.Key {
	t.Helper()
	k, err := token.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWall(t *testing.T) *wall {
	t.Helper()
	w := &wall{t: t}
	w.turn()
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.fetches.Add(1)
		if w.broken.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = rw.Write(w.ring.Load().JWKS(w.clock()))
	}))
	t.Cleanup(w.server.Close)
	return w
}

func (w *wall) clock() time.Time { return start.Add(time.Duration(w.now.Load())) }

func (w *wall) pass(d time.Duration) { w.now.Add(int64(d)) }

// turn gives the wall a new key, and forgets the one before.
func (w *wall) turn() {
	w.t.Helper()
	ring, err := token.NewKeyring(newKey(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.ring.Store(ring)
}

func (w *wall) issue(kind token.Kind) string {
	w.t.Helper()
	c := token.Claims{X402: token.Purchase{Network: "eip155:84532", Asset: "0x1", Amount: "10000"}}
	c.Subject, c.ID, c.IssuedAt = "0xpayer", "pay_1", jwt.NewNumericDate(w.clock())
	i := token.Issuer{Keyring: w.ring.Load(), Issuer: site, Now: w.clock}
	s, err := i.Issue(kind, c, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *wall) verifier() *Verifier {
	w.t.Helper()
	v, err := New(Options{Issuer: site, JWKS: w.server.URL, Now: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *wall) wants(v *Verifier, tok string, want error) {
	w.t.Helper()
	if _, err := v.Verify(w.t.Context(), tok); !errors.Is(err, want) {
		w.t.Errorf("got %v, want %v", err, want)
	}
}

// fetched checks how often the keys were asked for since the last time.
func (w *wall) fetched(want int64) {
	w.t.Helper()
	if n := w.fetches.Swap(0); n != want {
		w.t.Errorf("the keys were fetched %d times, want %d", n, want)
	}
}

func TestVerify(t *testing.T) {
	w := newWall(t)
	v := w.verifier()
	tok := w.issue(token.Assertion)
	c, err := v.Verify(t.Context(), tok)
	if err != nil || c.ID != "pay_1" || c.X402.Amount != "10000" {
		t.Fatalf("got %+v, %v", c, err)
	}
	w.wants(v, tok, nil)
	w.fetched(1)
	w.wants(v, "", ErrMissing)
	w.wants(v, "hello", token.ErrMalformed)
	w.wants(v, w.issue(token.Access), token.ErrWrongKind) // what opens the gate proves nothing here
	w.pass(2 * time.Minute)
	w.wants(v, tok, token.ErrExpired)
	w.fetched(0)
}

// A key that is not known is looked for at once, but not again and again for whoever makes one up.
func TestUnknownKey(t *testing.T) {
	w, other := newWall(t), newWall(t)
	v := w.verifier()
	w.wants(v, w.issue(token.Assertion), nil)
	w.fetched(1)
	w.pass(time.Minute)
	w.turn()
	w.wants(v, w.issue(token.Assertion), nil)
	w.fetched(1)
	w.pass(time.Minute)
	for range 20 {
		w.wants(v, other.issue(token.Assertion), token.ErrUnknownKey)
	}
	w.fetched(1)
	w.wants(v, w.issue(token.Assertion), nil)
}

// Keys are fetched again when they are old. Those that there are do for an hour if they can't be, and then nothing is believed.
func TestKeysThatCannotBeHad(t *testing.T) {
	w := newWall(t)
	v := w.verifier()
	w.broken.Store(true)
	w.wants(v, w.issue(token.Assertion), ErrUnavailable)
	w.broken.Store(false)
	w.pass(2 * time.Second)
	w.wants(v, w.issue(token.Assertion), nil)
	w.fetches.Store(0)
	w.pass(keysAge)
	w.wants(v, w.issue(token.Assertion), nil)
	w.fetched(1)
	w.broken.Store(true)
	w.pass(keysAge)
	for range 5 {
		w.wants(v, w.issue(token.Assertion), nil)
	}
	w.fetched(1)
	w.pass(keysLast)
	w.wants(v, w.issue(token.Assertion), ErrUnavailable)
	w.broken.Store(false)
	w.pass(2 * time.Second)
	w.wants(v, w.issue(token.Assertion), nil)
}

// Many requests at once, of which the first finds no keys, fetch them once.
func TestFetchedOnce(t *testing.T) {
	w := newWall(t)
	v := w.verifier()
	tok := w.issue(token.Assertion)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() { w.wants(v, tok, nil) })
	}
	all.Wait()
	w.fetched(1)
}

func TestSecret(t *testing.T) {
	secret := []byte("kX9vQ2mWz7Rj4TbN8sLc1HgYf6Pd3AeUo5Vi")
	key, err := token.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := token.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	w := newWall(t)
	w.ring.Store(ring)
	v, err := New(Options{Issuer: site, Secret: [][]byte{[]byte("another-Zk3vQ2mWz7Rj4TbN8sLc1HgYf6Pd3A"), secret}, Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	w.wants(v, w.issue(token.Assertion), nil)
	w.turn()
	w.wants(v, w.issue(token.Assertion), token.ErrUnknownKey)
}

func TestNewRefuses(t *testing.T) {
	private, err := newKey(t).MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"nothing":       {Issuer: site},
		"no issuer":     {JWKS: site},
		"both":          {Issuer: site, JWKS: site, Secret: [][]byte{[]byte("kX9vQ2mWz7Rj4TbN8sLc1HgYf6Pd3AeUo5Vi")}},
		"no URL":        {Issuer: site, JWKS: "api.example.com"},
		"a file":        {Issuer: site, JWKS: "file:///etc/passwd"},
		"a weak secret": {Issuer: site, Secret: [][]byte{[]byte("secret")}},
		"a private key": {Issuer: site, Secret: [][]byte{private}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMiddleware(t *testing.T) {
	w := newWall(t)
	h := w.verifier().Middleware(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, ok := FromContext(r.Context())
		_ = json.NewEncoder(rw).Encode(map[string]any{"ok": ok, "payer": c.Subject})
	}))
	ask := func(header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		for _, v := range header {
			r.Header.Add(Header, v)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	good := w.issue(token.Assertion)
	if rec := ask(good); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "0xpayer") {
		t.Errorf("paid: %d %s", rec.Code, rec.Body)
	}
	for name, header := range map[string][]string{
		"nothing": nil, "two": {good, good}, "noise": {"x"}, "the buyer's token": {w.issue(token.Access)},
	} {
		if rec := ask(header...); rec.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
	w.broken.Store(true)
	w.pass(keysLast + time.Minute)
	if rec := ask(w.issue(token.Assertion)); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("without keys: %d", rec.Code)
	}
}

func FuzzParseJWKS(f *testing.F) {
	k, err := token.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ring, err := token.NewKeyring(k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ring.JWKS(start))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"x"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","kid":"x"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := token.ParseJWKS(data)
		if err != nil {
			return
		}
		for _, k := range keys {
			if k.Algorithm() == "HS256" || k.Algorithm() == "" || k.ID() == "" {
				t.Fatalf("took %v", k)
			}
			if _, err := k.MarshalPEM(); err == nil {
				t.Fatal("a private key was taken from a JWK Set")
			}
		}
	})
}
