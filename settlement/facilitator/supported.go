package facilitator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

// versions are those of the protocol in which a facilitator settles on our network.
type versions struct{ one, two bool }

func (v versions) speaks(version int) bool { return version == 1 && v.one || version == 2 && v.two }

// supported is what a facilitator said at /supported.
type supported struct {
	network x402.Network
	first   chan struct{} // closed after the first answer, or the first failure

	mu       sync.Mutex
	answered bool // once at least
	versions versions
	err      error // why there is no answer yet
	failures int
	due      time.Time
}

func (s *supported) init(n x402.Network) {
	s.network, s.first = n, make(chan struct{})
}

const (
	// refreshEvery is how long an answer is good. What a facilitator supports changes once in a year; that it answers is
	// worth knowing before a payment is handed to it.
	refreshEvery = 5 * time.Minute
	// longestRetryAfter is how long one may ask to be left alone.
	longestRetryAfter = 30 * time.Second
	supportedTimeout  = 10 * time.Second
)

var errUnasked = errors.New("it was not asked yet what it supports")

// wait waits for the first answer, d at most.
func (s *supported) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-s.first:
		return nil
	default:
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.first:
		return nil
	case <-t.C:
		return errUnasked
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fits answers nil if payments on our network may be handed over. An old answer is better than none.
func (s *supported) fits() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.answered && s.err != nil:
		return fmt.Errorf("it does not say what it supports: %w", s.err)
	case !s.answered:
		return errUnasked
	case s.versions == versions{}:
		return fmt.Errorf("it does not support the scheme %s on %s", x402.SchemeExact, s.network.ID)
	}
	return nil
}

func (s *supported) speaks() versions {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions
}

// note writes down the outcome of a question, and when to ask again; after is the least that the facilitator wants.
func (s *supported) note(v versions, err error, after time.Duration, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.answered, s.versions, s.err, s.failures = true, v, nil, 0
		s.due = at.Add(refreshEvery)
	} else {
		backoff := lastBackoff
		if s.failures < 6 {
			backoff = firstBackoff << s.failures
		}
		s.err, s.due = err, at.Add(max(after, backoff))
		s.failures++
	}
	select {
	case <-s.first:
	default:
		close(s.first)
	}
}

func (s *supported) dueAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due
}

// refresh asks each facilitator what it supports when that is due, until ctx ends.
func (s *Settler) refresh(ctx context.Context) {
	for {
		wait := s.refreshDue(ctx)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-s.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// refreshDue asks those that are due, and tells when the next one is.
func (s *Settler) refreshDue(ctx context.Context) time.Duration {
	remotes, _ := s.set()
	var wg sync.WaitGroup
	for _, r := range remotes {
		if !r.supported.dueAt().After(s.now()) {
			wg.Go(func() { s.askSupported(ctx, r) })
		}
	}
	wg.Wait()
	next := refreshEvery
	for _, r := range remotes {
		next = min(next, max(r.supported.dueAt().Sub(s.now()), firstBackoff/2))
	}
	return next
}

func (s *Settler) askSupported(ctx context.Context, r *remote) {
	asking, cancel := context.WithTimeout(ctx, supportedTimeout)
	defer cancel()
	v, after, err := r.askSupported(asking)
	if ctx.Err() != nil {
		return
	}
	r.supported.note(v, err, after, s.now())
	switch {
	case err != nil:
		s.log.WarnContext(ctx, "a facilitator does not say what it supports", "facilitator", r.host, "error", err)
	case v == versions{}:
		s.log.ErrorContext(ctx, "a facilitator does not support the network; it is left out", "facilitator", r.host, "network", s.network.ID)
	}
}

// askSupported asks GET /supported. after is how long the facilitator wants to be left alone. One that has no such thing is
// taken for one that speaks every version.
func (r *remote) askSupported(ctx context.Context) (v versions, after time.Duration, err error) {
	a, err := r.do(ctx, http.MethodGet, "/supported", nil, maxSupported)
	if err != nil {
		return versions{}, 0, err
	}
	switch a.status {
	case http.StatusOK:
		v, err = readSupported(a.body, r.supported.network)
		return v, 0, err
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return versions{one: true, two: true}, 0, nil
	}
	if seconds, err := strconv.Atoi(a.retryAfter); err == nil && seconds > 0 {
		after = min(time.Duration(min(seconds, 3600))*time.Second, longestRetryAfter)
	}
	return versions{}, after, fmt.Errorf("HTTP status %d", a.status)
}

var errSupported = errors.New("its answer is not a list of kinds")

// readSupported finds in the answer to /supported in which versions the scheme exact is settled on n.
func readSupported(body []byte, n x402.Network) (v versions, err error) {
	var said struct {
		Kinds []json.RawMessage `json:"kinds"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Kinds == nil {
		return versions{}, errSupported
	}
	for _, raw := range said.Kinds {
		var k struct {
			Version int    `json:"x402Version"`
			Scheme  string `json:"scheme"`
			Network string `json:"network"`
		}
		if json.Unmarshal(raw, &k) != nil || k.Scheme != x402.SchemeExact {
			continue // nothing of ours
		}
		switch {
		case k.Version == 2 && covers(k.Network, n.ID):
			v.two = true
		case k.Version == 1 && n.V1Name != "" && k.Network == n.V1Name:
			v.one = true
		}
	}
	return v, nil
}

// covers reports whether a network, or a pattern such as eip155:*, is that of id.
func covers(pattern, id string) bool {
	family, all := strings.CutSuffix(pattern, "*")
	return pattern == id || all && family != "" && strings.HasPrefix(id, family)
}
