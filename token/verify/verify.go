// Package verify lets an upstream make sure by itself that a request came through the paywall and was paid for: it checks the
// assertion that the paywall adds to each request, in the header X-Payment-Token.
//
// An upstream that only the paywall can reach need not do this.
//
//	v, err := verify.New(verify.Options{
//		Issuer: "https://api.example.com", // public_url in the Caddyfile
//		JWKS:   "https://api.example.com/.well-known/jwks.json",
//	})
//	…
//	http.Handle("/", v.Middleware(handler)) // within: verify.FromContext(r.Context())
//
// The keys are fetched when they are first needed, and again when they are old or a token names one that is not among them.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/token"
)

// Header is where the paywall puts the assertion.
const Header = "X-Payment-Token"

const (
	// keysAge is how old keys may become before they are fetched again: as long as the paywall says that they may be kept.
	keysAge = 5 * time.Minute
	// keysLast is how long keys are used when they can't be fetched again.
	keysLast = time.Hour
	// fetchAgain is how long after a fetch the next one may follow for the sake of an unknown key, whoever presents it.
	fetchAgain = 5 * time.Second
	// fetchTimeout bounds one fetch, and maxJWKS what it may bring, in bytes.
	fetchTimeout = 5 * time.Second
	maxJWKS      = 256 << 10
)

var (
	// ErrMissing: the request has no assertion.
	ErrMissing = errors.New("verify: the request did not come through the paywall: it has no " + Header)
	// ErrUnavailable: the paywall's keys can't be had, so nothing can be said of the token.
	ErrUnavailable = errors.New("verify: the keys of the paywall can't be had")
)

// Options of a Verifier.
type Options struct {
	// Issuer is whose tokens are taken: the public_url of the paywall, or "caddy-x402" where it has none. Required.
	Issuer string
	// JWKS is the URL of the paywall's keys, usually its /.well-known/jwks.json. Give it, or Secret.
	JWKS string
	// Secret is the key of a paywall that signs with HS256. Several may be given while it changes.
	Secret [][]byte
	// Client fetches the keys. Default: one that follows no redirects.
	Client *http.Client
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Verifier checks assertions. It is safe for concurrent use.
type Verifier struct {
	o      Options
	ring   *token.Keyring
	tokens *token.Verifier

	fetching sync.Mutex // held during a fetch

	mu      sync.Mutex
	fetched time.Time // the last fetch that brought keys
	tried   time.Time // the last fetch
	body    string    // what it brought
}

// New makes a Verifier. It asks nobody yet.
func New(o Options) (*Verifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Client == nil {
		o.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if (o.JWKS == "") == (len(o.Secret) == 0) {
		return nil, errors.New("verify: give the URL of the paywall's keys, or its secret")
	}
	var keys []token.Key
	for _, secret := range o.Secret {
		k, err := token.ParseKey(secret)
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		if k.Algorithm() != "HS256" {
			return nil, errors.New("verify: a private key is no secret; an upstream needs the public keys, by JWKS")
		}
		keys = append(keys, k)
	}
	if o.JWKS != "" {
		u, err := url.Parse(o.JWKS)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, errors.New("verify: JWKS is no URL; write one such as https://api.example.com/.well-known/jwks.json")
		}
	}
	ring, err := token.NewVerifyingKeyring(keys...)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := &Verifier{o: o, ring: ring}
	if v.tokens, err = token.NewVerifier(ring, token.Assertion, o.Issuer, 0); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return v, nil
}

// Verify gives what a token says. Errors are ErrUnavailable and those of package token.
func (v *Verifier) Verify(ctx context.Context, text string) (*token.Claims, error) {
	if text == "" {
		return nil, ErrMissing
	}
	now := v.o.Now()
	if v.o.JWKS == "" {
		return v.tokens.Verify(text, now)
	}
	if err := v.keepFresh(ctx, now); err != nil {
		return nil, err
	}
	c, err := v.tokens.Verify(text, now)
	if errors.Is(err, token.ErrUnknownKey) && v.again(ctx, now) {
		c, err = v.tokens.Verify(text, now)
	}
	return c, err
}

// Request is Verify for the assertion of a request.
func (v *Verifier) Request(r *http.Request) (*token.Claims, error) {
	values := r.Header.Values(Header)
	if len(values) != 1 {
		return nil, ErrMissing
	}
	return v.Verify(r.Context(), values[0])
}

// keepFresh fetches the keys if there are none, or they are old. While one request does so, others use those that there are.
func (v *Verifier) keepFresh(ctx context.Context, now time.Time) error {
	fetched, tried := v.times()
	age := now.Sub(fetched)
	none := fetched.IsZero() || age > keysLast
	switch {
	case !none && age < keysAge:
		return nil
	case none:
		v.fetching.Lock()
	case now.Sub(tried) < fetchAgain || !v.fetching.TryLock():
		return nil
	}
	defer v.fetching.Unlock()
	if f, t := v.times(); f.After(fetched) || none && now.Sub(t) < time.Second { // another has fetched them, or tried just now
		if f.IsZero() || now.Sub(f) > keysLast {
			return ErrUnavailable
		}
		return nil
	}
	if err := v.fetch(ctx, now); err != nil && none {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// again fetches the keys for the sake of one that is not known, and reports whether another look is worth it.
func (v *Verifier) again(ctx context.Context, now time.Time) bool {
	before, _ := v.times()
	v.fetching.Lock()
	defer v.fetching.Unlock()
	fetched, tried := v.times()
	if fetched.After(before) {
		return true
	}
	return now.Sub(tried) >= fetchAgain && v.fetch(ctx, now) == nil
}

func (v *Verifier) times() (fetched, tried time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fetched, v.tried
}

// fetch asks for the keys. Its caller holds v.fetching.
func (v *Verifier) fetch(ctx context.Context, now time.Time) error {
	v.mu.Lock()
	v.tried = now
	v.mu.Unlock()
	// A client that leaves must not end what others wait for.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	body, err := v.get(ctx)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", v.o.JWKS, err)
	}
	v.mu.Lock()
	same := v.body == string(body)
	v.mu.Unlock()
	if !same { // or what was verified would have to be verified again
		keys, err := token.ParseJWKS(body)
		if err != nil {
			return fmt.Errorf("fetching %s: %w", v.o.JWKS, err)
		}
		ring, err := token.NewVerifyingKeyring(keys...)
		if err != nil {
			return fmt.Errorf("fetching %s: %w", v.o.JWKS, err)
		}
		v.ring.Replace(ring)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fetched, v.body = now, string(body)
	return nil
}

func (v *Verifier) get(ctx context.Context) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.o.JWKS, nil)
	if err != nil {
		return nil, err
	}
	res, err := v.o.Client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxJWKS {
		return nil, errors.New("it is too long")
	}
	return body, nil
}
