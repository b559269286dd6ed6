// Package pricing asks the seller's own endpoint what a request costs.
package pricing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/internal/expiring"
	"github.com/caddy-x402/caddy-x402/token/remote"
)

// Defaults and bounds of a Remote.
const (
	DefaultTimeout = 2 * time.Second
	MaxTimeout     = 30 * time.Second
	MaxCache       = 24 * time.Hour

	maxAnswer = 4 << 10
	maxKept   = 4096 // prices
	atOnce    = 64   // questions under way
)

// Config says which endpoint is asked, and how.
type Config struct {
	// URL must be https, unless it is on this machine.
	URL string
	// Timeout bounds one question. Default: DefaultTimeout.
	Timeout time.Duration
	// Cache is how long an answer is good for; zero: each request asks, but those that ask the same at the same time ask once.
	Cache time.Duration
	// Authorize adds what proves who asks; may be nil. It must not tell a secret in its error.
	Authorize func(*http.Request) error
	// Refused is called where the endpoint has answered 401; may be nil.
	Refused func()
	// Transport does the asking. Default: one of its own, which Close closes.
	Transport http.RoundTripper
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Remote asks an endpoint. It is safe for concurrent use.
type Remote struct {
	Config
	http *http.Client
	own  *http.Transport
	free chan struct{}

	kept expiring.Map[string, string] // prices, by their subjects

	mu    sync.Mutex
	under map[string]*question
}

// question is one that is under way.
type question struct {
	done  chan struct{}
	price string
	err   error
}

// New makes a Remote; it asks nobody.
func New(c Config) (*Remote, error) {
	if err := remote.CheckURL(c.URL); err != nil {
		return nil, fmt.Errorf("pricer: %w", err)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	switch {
	case c.Timeout < 0 || c.Timeout > MaxTimeout:
		return nil, fmt.Errorf("pricer: the timeout must be between 1ms and %s: clients wait for it", MaxTimeout)
	case c.Cache < 0 || c.Cache > MaxCache:
		return nil, fmt.Errorf("pricer: cache must be between 0 and %s", MaxCache)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Remote{Config: c, free: make(chan struct{}, atOnce), kept: expiring.Map[string, string]{Most: maxKept}, under: make(map[string]*question)}
	if c.Transport == nil {
		r.own = remote.NewTransport()
		r.Transport = r.own
	}
	r.http = remote.NewHTTP(r.Transport)
	return r, nil
}

// Close lets go of idle connections.
func (r *Remote) Close() {
	if r.own != nil {
		r.own.CloseIdleConnections()
	}
}

// errCrowded: more is asked than the endpoint should be asked at once.
var errCrowded = errors.New("the endpoint that knows prices is asked too much at once")

// Price asks for the price of subject, which is the JSON that the endpoint gets. Whoever asks for the same meanwhile gets the same answer.
// A failure is nobody's price, and is not kept.
func (r *Remote) Price(ctx context.Context, subject string) (string, error) {
	q, first, price := r.join(subject)
	switch {
	case q == nil:
		return price, nil
	case !first:
		select {
		case <-q.done:
			return q.price, q.err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	q.price, q.err = r.askInTurn(ctx, subject)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.under, subject)
	if q.err == nil && r.Cache > 0 {
		now := r.Now()
		r.kept.Put(subject, q.price, now.Add(r.Cache), now)
	}
	close(q.done)
	return q.price, q.err
}

// join gives the price that is kept for subject, or a question: a new one, which the caller has to ask, or one that is under way.
func (r *Remote) join(subject string) (q *question, first bool, price string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if price, ok := r.kept.Get(subject, r.Now()); ok {
		return nil, false, price
	}
	if q := r.under[subject]; q != nil {
		return q, false, ""
	}
	q = &question{done: make(chan struct{})}
	r.under[subject] = q
	return q, true, ""
}

// askInTurn asks; others may wait for the answer, so it goes on when its client leaves.
func (r *Remote) askInTurn(ctx context.Context, subject string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timeout)
	defer cancel()
	select {
	case r.free <- struct{}{}:
		defer func() { <-r.free }()
	case <-ctx.Done():
		return "", errCrowded
	}
	return r.ask(ctx, subject)
}

func (r *Remote) ask(ctx context.Context, subject string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader([]byte(subject)))
	if err != nil {
		return "", errors.New("the address of the endpoint that knows prices is none")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if r.Authorize != nil {
		if err := r.Authorize(req); err != nil {
			return "", fmt.Errorf("nothing proves to the endpoint that knows prices who asks: %w", err)
		}
	}
	res, err := r.http.Do(req)
	if err != nil {
		return "", fmt.Errorf("the endpoint that knows prices did not answer: %w", remote.Plain(err))
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		if res.StatusCode == http.StatusUnauthorized && r.Refused != nil {
			r.Refused()
		}
		return "", fmt.Errorf("the endpoint that knows prices answered with status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil || len(body) > maxAnswer {
		return "", errors.New("the answer of the endpoint that knows prices is broken off, or too long")
	}
	var answer struct {
		Price *string `json:"price"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Price == nil || *answer.Price == "" {
		return "", errors.New(`the endpoint that knows prices answered something else than {"price":"0.01"}`)
	}
	return *answer.Price, nil
}
