package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// Config says how to reach one chain.
type Config struct {
	// Endpoints are JSON-RPC URLs (http or https), the preferred one first.
	Endpoints []string
	// ChainID, if not 0, is demanded of each endpoint before its first answer counts: a
	// stranger's chain among the endpoints would deny every payment.
	ChainID uint64
	// CallTimeout bounds one request to one endpoint; 5 s if 0.
	CallTimeout time.Duration
	// PollInterval is how often the head is asked for while somebody waits for a receipt; 250 ms if 0. Chains whose blocks take
	// long are asked less often, and any chain more often when a block is due, or when it is not known when one is.
	PollInterval time.Duration
	// SafeDepth is how many blocks below the head count as safe where no node knows a "safe" block; 128 if 0.
	SafeDepth uint64
	// MaxBody bounds an answer's size in bytes; 8 MiB if 0.
	MaxBody int64
	Logger  *slog.Logger
	// Asked hears how long each request to an endpoint took, and Blamed of each that was of no use: behind, where the endpoint answered and
	// lags. Endpoints are told by their place in Endpoints, from 1. For metrics; may be nil.
	Asked  func(endpoint int, took time.Duration)
	Blamed func(endpoint int, behind bool)
	// Now is the clock by which failing endpoints are put aside; time.Now if nil.
	Now func() time.Time
}

// Client asks one chain through its endpoints. All methods are safe for concurrent use. Errors that
// say that no endpoint answered wrap settlement.ErrUnavailable.
type Client struct {
	cfg  Config
	http *http.Client

	mu        sync.RWMutex
	endpoints []*endpoint
	closed    bool

	floor   floor
	span    spans
	watcher watcher
	depths  depths
	// lastSafe is the newest safe block that a node has told of; nil if none has.
	lastSafe atomic.Pointer[Head]

	// ctx ends with Close; what outlives its caller (broadcasts, the watcher) runs under it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// ErrClosed says that the client was closed. It wraps settlement.ErrUnavailable.
var ErrClosed = fmt.Errorf("%w: the client is closed", settlement.ErrUnavailable)

// New makes a client. It asks nothing yet.
func New(cfg Config) (*Client, error) {
	cfg.CallTimeout = orDefault(cfg.CallTimeout, 5*time.Second)
	cfg.PollInterval = orDefault(cfg.PollInterval, 250*time.Millisecond)
	cfg.SafeDepth = orDefault(cfg.SafeDepth, 128)
	cfg.MaxBody = orDefault(cfg.MaxBody, 8<<20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Asked == nil {
		cfg.Asked = func(int, time.Duration) {}
	}
	if cfg.Blamed == nil {
		cfg.Blamed = func(int, bool) {}
	}
	c := &Client{cfg: cfg, http: newHTTPClient(cfg.MaxBody)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.watcher.waiting = make(map[*waiter]struct{})
	c.watcher.came = make(chan struct{}, 1)
	c.watcher.pace.base = cfg.PollInterval
	if err := c.Reconfigure(cfg.Endpoints); err != nil {
		c.cancel()
		return nil, err
	}
	return c, nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Reconfigure swaps the endpoints. Calls under way end on the old ones; an endpoint that stays keeps
// what is known of it. An error leaves all as it was.
func (c *Client) Reconfigure(endpoints []string) error {
	if len(endpoints) == 0 {
		return errors.New("chain: no endpoint is configured")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := make(map[string]*endpoint, len(c.endpoints))
	for _, e := range c.endpoints {
		known[e.url] = e
	}
	next := make([]*endpoint, 0, len(endpoints))
	for i, u := range endpoints {
		e := known[u]
		if e == nil {
			var err error
			if e, err = newEndpoint(u, c.http); err != nil {
				return fmt.Errorf("chain: endpoint %d: %w", i+1, err)
			}
		}
		next = append(next, e)
	}
	for i, e := range next {
		e.place.Store(int32(i + 1))
	}
	c.endpoints = next
	return nil
}

// Close ends waiting calls and broadcasts and waits for them.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	c.http.CloseIdleConnections()
	return nil
}

// run starts f in a goroutine that Close waits for, unless the client is closed.
func (c *Client) run(f func()) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}
