// Package redis keeps the ledger in Redis: one server, one that Sentinel watches, or a Cluster, for any number of
// instances. It passes the suite ledger/storetest.
//
// Payments are cut into 64 parts by their payer (see ledger.Shard); a part is on one server, so that a payment changes with its
// trail and its indexes in one script. The state machine runs here, not in Redis: a call reads a payment, makes the
// step, and a script writes what came of it if the version is still the same. Every write carries a random token into the
// trail, so that one whose answer was lost is repeated without being made twice.
//
// A transaction concerns its wallet and payments of any payers, which may be on different servers. Record marks the payments,
// writes the transaction to its wallet (at this moment it counts, or not), and then finishes the payments. Whoever
// meets a mark looks at the wallet and finishes, or gives up, what another has left behind; so nobody sees the middle of it.
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Options are what Open can do without.
type Options struct {
	// Prefix begins every key, so that several ledgers, and others' data, may share a server. Default: the URL's, or "x402".
	Prefix string
	// Durable demands that a write is on the disk before it counts: `appendonly yes` with `appendfsync always`, or, from
	// Redis 7.2, WAITAOF. For real money.
	Durable bool
	// Replicas is how many replicas must have a write before it counts. Nil: one behind Sentinel, in a Cluster one
	// where a primary has any, none for a single server. A write that too few have confirmed is an error that wraps
	// ErrUnanswered; so is, until they have, every read of this store on that server that somebody acts upon: a failover would
	// forget what it shows.
	Replicas *int
	// Now is the store's clock; nil means the server's.
	Now func() time.Time
	// Logger hears what operators should know; nil means silence.
	Logger *slog.Logger

	dial     dialer
	patience time.Duration
}

// Store is the ledger in Redis.
type Store struct {
	log      *slog.Logger
	keys     keys
	clock    clock
	servers  *servers
	patience time.Duration
	killed   atomic.Bool
	ids      idCache

	mu      sync.Mutex
	closed  bool
	adopted time.Time // when adopt was done last
	calls   sync.WaitGroup

	closing sync.Once
	err     error
}

var _ ledger.Store = (*Store)(nil)

// Open opens the ledger that the URL names, one of
//
//	redis://[user:password@]host[:port][/database]
//	redis+sentinel://[user:password@]host[:port],.../master-name[/database][?sentinel_username=&sentinel_password=]
//	redis+cluster://[user:password@]host[:port],...
//
// With rediss in place of redis, connections are encrypted; then the options ca, cert, key (files in PEM) and server_name are
// known too. A server's user needs no more than
//
//	user x402 on >password ~x402:* -@all +eval +evalsha +time +info +config|get +wait +select
//	  +get +set +del +exists +incr +getrange +setrange +pexpireat
//	  +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore +zcard +zscore +zcount +zrank
//	  +hget +hset +hdel +hexists +rpush +lrange +llen +lindex +sadd +srem +smembers
//
// (zrange with BYLEX, which Redis 6.2 brought, if there are objects) and, in a Cluster, +cluster|slots +asking; where WAITAOF is used, +waitaof. client_name (+client|setname) names the connections, prefix is Options.Prefix. The caller closes the store. Errors wrap ErrAddress, or ErrServer where
// the server's configuration would lose payments; they never show a password.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	a, files, err := parseAddress(rawURL)
	if err != nil {
		return nil, err
	}
	if err := a.certificates(files); err != nil {
		return nil, err
	}
	if o.Prefix, err = a.prefixed(o.Prefix); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.patience == 0 {
		o.patience = patience
	}
	want := demands{durable: o.Durable, replicas: -1, sentinel: a.kind == sentinelKind}
	if o.Replicas != nil {
		want.replicas = max(*o.Replicas, 0)
	}
	s := &Store{log: o.Logger, keys: keys{o.Prefix}, patience: o.patience, servers: connect(a, want, o.dial)}
	s.clock.fixed = o.Now
	if err := s.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", a.shown(), err), s.servers.close())
	}
	return s, nil
}

// greet connects to each server that is written to, which checks it, and asks for the time.
func (s *Store) greet(ctx context.Context) error {
	nodes, err := s.servers.primaries(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		t, err := n.client.Time(ctx).Result()
		if err != nil {
			return named(err)
		}
		if s.clock.fixed == nil {
			s.clock.correct(t.UnixMicro())
		}
	}
	// The last anchor's time is a floor in every part; the scripts know it. So does Now from here on.
	last, err := s.lastAnchor(ctx)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	s.clock.raise(last.Until)
	return nil
}

// Now implements ledger.Store.
func (s *Store) Now() time.Time { return s.clock.now() }

// Ping writes to each server: only that shows that it takes a claim.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	seen := map[*node]bool{}
	var calls []*call
	for part := range partitions {
		n, err := s.servers.node(ctx, s.keys.part(part, pingKey))
		if err != nil {
			return fmt.Errorf("ledger/redis: %w", err)
		}
		if !seen[n] {
			seen[n] = true
			calls = append(calls, writing("ping", []string{
				s.keys.part(part, floorKey), s.keys.part(part, pingKey),
			}))
		}
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	for _, c := range calls {
		if c.what() == "INCOMPLETE" {
			return ledger.ErrIncomplete
		}
	}
	return s.complete(ctx)
}

// Close waits for what is under way and ends the connections.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
	s.closing.Do(func() { s.err = s.servers.close() })
	return s.err
}
