package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// servers are the Redis that a store talks to: one server, the one that Sentinel names, or a Cluster.
type servers struct {
	one     *goredis.Client
	cluster *goredis.ClusterClient
	nodes   sync.Map // *goredis.Client -> *node
	demands demands
}

// node is one server.
type node struct {
	client *goredis.Client
	// How its writes are awaited beyond its answer; the checks of a connection decide.
	waitAOF  atomic.Bool
	replicas atomic.Int64
	// looked is when that was found out last, in Unix milliseconds; 0: never.
	looked atomic.Int64
	// doubts counts writes of which it is not known whether they are confirmed; settled of them are meanwhile.
	doubts, settled atomic.Int64
}

const (
	dialTimeout = 3 * time.Second
	// readTimeout is longer than what may be awaited in one round trip, the disk and then replicas: so an answer comes.
	readTimeout = 2*confirmation + time.Second
	poolSize    = 64
)

// dialError is a connection that did not come about, so nothing was sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// encrypted wraps a dialer in TLS; each server must prove the name it was called by.
func encrypted(dial dialer, config *tls.Config) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := config.Clone()
		if c.ServerName == "" {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				host = address
			}
			c.ServerName = host
		}
		secure := tls.Client(conn, c)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &dialError{err}
		}
		return secure, nil
	}
}

// quiet keeps go-redis from writing to standard error: what goes wrong is told by errors.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func init() { goredis.SetLogger(quiet{}) }

func connect(a *address, want demands, dial dialer) *servers {
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	plain := dial
	dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := plain(ctx, network, address)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
	if a.tls != nil {
		dial = encrypted(dial, a.tls)
	}
	v := &servers{demands: want}
	off := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch a.kind {
	case clusterKind:
		v.cluster = goredis.NewClusterClient(&goredis.ClusterOptions{
			Addrs: a.hosts, Dialer: dial, ClientName: a.client, Username: a.username, Password: a.password,
			Protocol: 2, MaxRetries: -1, DialerRetries: 1, DialTimeout: dialTimeout, ReadTimeout: readTimeout, WriteTimeout: readTimeout,
			PoolSize: poolSize, DisableIdentity: true, MaintNotificationsConfig: off,
			NewClient: func(o *goredis.Options) *goredis.Client {
				n := new(node)
				o.OnConnect = func(ctx context.Context, c *goredis.Conn) error { return v.accept(ctx, c, n, true) }
				n.client = goredis.NewClient(o)
				v.nodes.Store(n.client, n)
				return n.client
			},
		})
	case sentinelKind:
		n := new(node)
		n.client = goredis.NewFailoverClient(&goredis.FailoverOptions{
			MasterName: a.master, SentinelAddrs: a.hosts, Dialer: dial, ClientName: a.client, Username: a.username, Password: a.password,
			SentinelUsername: a.sentinelUsername, SentinelPassword: a.sentinelPassword, DB: a.db,
			Protocol: 2, MaxRetries: -1, DialerRetries: 1, DialTimeout: dialTimeout, ReadTimeout: readTimeout, WriteTimeout: readTimeout,
			PoolSize: poolSize, DisableIdentity: true,
			OnConnect: func(ctx context.Context, c *goredis.Conn) error { return v.accept(ctx, c, n, false) },
		})
		v.one = n.client
		v.nodes.Store(n.client, n)
	default:
		n := new(node)
		n.client = goredis.NewClient(&goredis.Options{
			Addr: a.hosts[0], Dialer: dial, ClientName: a.client, Username: a.username, Password: a.password, DB: a.db,
			Protocol: 2, MaxRetries: -1, DialerRetries: 1, DialTimeout: dialTimeout, ReadTimeout: readTimeout, WriteTimeout: readTimeout,
			PoolSize: poolSize, DisableIdentity: true, MaintNotificationsConfig: off,
			OnConnect: func(ctx context.Context, c *goredis.Conn) error { return v.accept(ctx, c, n, false) },
		})
		v.one = n.client
		v.nodes.Store(n.client, n)
	}
	return v
}

// accept checks a server. go-redis takes one layer off the error of a new connection: so it gets one more.
func (v *servers) accept(ctx context.Context, c *goredis.Conn, n *node, cluster bool) error {
	if err := v.demands.check(ctx, c, n, cluster); err != nil {
		return fmt.Errorf("checking the server: %w", err)
	}
	n.looked.Store(time.Now().UnixMilli())
	return nil
}

// relook is how long it counts whether a Cluster's primary has replicas: they come and go while connections stay.
const relook = 2 * time.Second

// ready finds out how writes to n are awaited, if that is not known. It must be before they are sent.
func (v *servers) ready(ctx context.Context, n *node) error {
	looked := n.looked.Load()
	if looked == 0 {
		if err := n.client.Ping(ctx).Err(); err != nil { // its connection is checked
			return err
		}
		if n.looked.Load() == 0 {
			return fmt.Errorf("ledger/redis: a server that was not checked")
		}
		return nil
	}
	if v.cluster == nil || v.demands.replicas >= 0 || time.Since(time.UnixMilli(looked)) < relook {
		return nil
	}
	if !n.looked.CompareAndSwap(looked, time.Now().UnixMilli()) {
		return nil // another asks already
	}
	return v.demands.copies(ctx, n.client, n)
}

func (v *servers) known(client *goredis.Client) (*node, error) {
	n, ok := v.nodes.Load(client)
	if !ok {
		return nil, fmt.Errorf("ledger/redis: a server that was not checked")
	}
	return n.(*node), nil //nolint:forcetypeassert // only nodes are stored
}

// node is the server that has key, as far as is known.
func (v *servers) node(ctx context.Context, key string) (*node, error) {
	if v.one != nil {
		return v.known(v.one)
	}
	client, err := v.cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil, &dialError{err}
	}
	return v.known(client)
}

// at is the server at an address that another has named; nil if it is not known.
func (v *servers) at(address string) *node {
	if address == "" {
		return nil
	}
	var found *node
	v.nodes.Range(func(_, value any) bool {
		n := value.(*node) //nolint:forcetypeassert // as above
		if n.client.Options().Addr == address {
			found = n
		}
		return found == nil
	})
	return found
}

// stale says that what is known of the Cluster may be wrong.
func (v *servers) stale(ctx context.Context) {
	if v.cluster != nil {
		v.cluster.ReloadState(ctx)
	}
}

// primaries are the servers that are written to.
func (v *servers) primaries(ctx context.Context) ([]*node, error) {
	if v.one != nil {
		n, err := v.known(v.one)
		return []*node{n}, err
	}
	var mu sync.Mutex
	var got []*node
	err := v.cluster.ForEachMaster(ctx, func(_ context.Context, c *goredis.Client) error {
		n, err := v.known(c)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ledger/redis: asking the Cluster: %w", err)
	}
	return got, nil
}

func (v *servers) close() error {
	if v.one != nil {
		return v.one.Close()
	}
	return v.cluster.Close()
}

// doubted reports whether the server may show what is not confirmed: another would not have it after a failover.
func (n *node) doubted() bool {
	return n.doubts.Load() > n.settled.Load() && (n.waitAOF.Load() || n.replicas.Load() > 0)
}

// confirm adds to a pipeline what confirms its writes, and, where there is a key to prove it by, all that the server has; the
// function tells after it whether they are. WAIT speaks of the last write of its own connection, and of all before it.
func (n *node) confirm(ctx context.Context, pipe goredis.Pipeliner, proof string) func() error {
	doubts := n.doubts.Load()
	var written *goredis.StatusCmd
	if proof != "" {
		written = pipe.Set(ctx, proof, "1", time.Minute)
	}
	wait := n.wait(ctx, pipe)
	return func() error {
		err := wait()
		if written != nil && written.Err() != nil {
			err = fmt.Errorf("%w: %v", ErrUnanswered, written.Err()) //nolint:errorlint // see outcome
		}
		if err != nil {
			n.doubts.Add(1)
		} else if proof != "" {
			for had := n.settled.Load(); had < doubts && !n.settled.CompareAndSwap(had, doubts); had = n.settled.Load() {
			}
		}
		return err
	}
}

// wait adds to a pipeline what awaits its writes on the disk and on replicas.
func (n *node) wait(ctx context.Context, pipe goredis.Pipeliner) func() error {
	var disk *goredis.Cmd
	var copies *goredis.Cmd
	if n.waitAOF.Load() {
		disk = pipe.Do(ctx, "waitaof", 1, 0, confirmation.Milliseconds())
	}
	replicas := n.replicas.Load()
	if replicas > 0 {
		copies = pipe.Do(ctx, "wait", replicas, confirmation.Milliseconds())
	}
	return func() error {
		if disk != nil {
			if got, err := disk.Int64Slice(); err != nil {
				return fmt.Errorf("%w on the disk: %v", ErrUnanswered, err) //nolint:errorlint // see outcome
			} else if len(got) == 0 || got[0] < 1 {
				return fmt.Errorf("%w on the disk in %v", ErrUnanswered, confirmation)
			}
		}
		if copies != nil {
			if got, err := copies.Int64(); err != nil {
				return fmt.Errorf("%w by replicas: %v", ErrUnanswered, err) //nolint:errorlint // see outcome
			} else if got < replicas {
				return fmt.Errorf("%w: %d of %d replicas have it after %v", ErrUnanswered, got, replicas, confirmation)
			}
		}
		return nil
	}
}
