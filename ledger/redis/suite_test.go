package redis_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/test/service"
)

func TestSuite(t *testing.T) {
	r := single(t, service.RedisOptions{})
	storetest.Run(t, opener(r.URL()), storetest.Options{Forgets: true})
}

func TestSuiteOnCluster(t *testing.T) {
	c := cluster(t, 0)
	fewer(t)
	storetest.Run(t, opener(c.URL()), storetest.Options{Forgets: true, Light: true})
}

func TestSuiteOnSentinel(t *testing.T) {
	s := sentinel(t, 1)
	fewer(t)
	storetest.Run(t, opener(s.URL()), storetest.Options{Forgets: true, Light: true})
}

// fewer has the model run less often: the store's code has passed on a single server.
func fewer(t *testing.T) {
	t.Helper()
	checks := flag.Lookup("rapid.checks")
	had := checks.Value.String()
	if err := checks.Value.Set("12"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = checks.Value.Set(had) })
}

func single(t testing.TB, o service.RedisOptions) *service.Redis {
	t.Helper()
	r, err := service.StartRedis(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, r)
	return r
}

func stopped(t testing.TB, s interface{ Stop() error }) {
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func cluster(t testing.TB, replicas int) *service.RedisCluster {
	t.Helper()
	c, err := service.StartRedisCluster(t.Context(), 3, replicas, service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, c)
	return c
}

func sentinel(t testing.TB, replicas int) *service.RedisSentinel {
	t.Helper()
	s, err := service.StartRedisSentinel(t.Context(), replicas, service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, s)
	return s
}

var prefixes atomic.Int64

// opener opens empty stores beside each other on the servers of a URL.
func opener(url string) storetest.Open {
	return func(t *testing.T, now func() time.Time) storetest.Backend {
		b := &backend{t: t, url: url, now: now, prefix: fmt.Sprintf("t%d", prefixes.Add(1))}
		b.first = b.open()
		return b
	}
}

// backend crashes a store by cutting its connections: that is what a server sees of a process that is killed.
type backend struct {
	t      *testing.T
	url    string
	now    func() time.Time
	prefix string

	first, second *instance
}

// instance is a store whose connections can be cut.
type instance struct {
	*redis.Store
	name string

	mu    sync.Mutex
	conns map[*conn]bool
	steps int // until the cut, counted down by reads and writes; negative: none is planned
	cut   bool
}

var errCut = errors.New("the process was killed")

func (b *backend) open() *instance {
	i := &instance{name: fmt.Sprintf("c%d", prefixes.Add(1)), conns: map[*conn]bool{}, steps: -1}
	o := redis.WithDialer(redis.Options{Now: b.now, Prefix: b.prefix}, i.dial)
	s, err := redis.Open(context.Background(), b.url+"?client_name="+i.name, o)
	if err != nil {
		b.t.Fatalf("opening: %v", err)
	}
	i.Store = s
	return i
}

func (i *instance) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cut {
		return nil, errors.Join(errCut, c.Close())
	}
	made := &conn{c, i}
	i.conns[made] = true
	return made, nil
}

// step counts one and reports whether the process still lives.
func (i *instance) step() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.steps == 0 {
		i.die()
	}
	if i.steps > 0 {
		i.steps--
	}
	return !i.cut
}

func (i *instance) die() {
	i.cut = true
	if i.Store != nil {
		i.Kill()
	}
	for c := range i.conns {
		_ = c.Conn.Close()
	}
}

// conn is a connection of an instance.
type conn struct {
	net.Conn
	of *instance
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.of.step() {
		return 0, errCut
	}
	return c.Conn.Write(b)
}

// Read is killed when the server has answered: so what was sent was also done, and is not done later.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.of.step() {
		return 0, errCut
	}
	return n, err
}

func (b *backend) Store() ledger.Store { return b.first.Store }

func (b *backend) Second() ledger.Store {
	if b.second == nil {
		b.second = b.open()
	}
	return b.second.Store
}

func (b *backend) Crash() { b.CrashDuring(1<<30, func(ledger.Store) {}) }

func (b *backend) CrashDuring(steps int, f func(ledger.Store)) bool {
	i := b.first
	i.mu.Lock()
	i.steps = steps
	i.mu.Unlock()
	f(i.Store)
	i.mu.Lock()
	inside := i.cut
	i.mu.Unlock()
	b.kill()
	b.first = b.open()
	return inside
}

// kill ends the instances, and waits until the servers have done what they had been sent.
func (b *backend) kill() {
	for _, i := range []*instance{b.first, b.second} {
		if i == nil {
			continue
		}
		i.mu.Lock()
		i.die()
		i.mu.Unlock()
		_ = i.Close()
		b.gone(i.name)
	}
	b.first, b.second = nil, nil
}

// gone waits until no server has a connection of that name any more.
func (b *backend) gone(name string) {
	for _, addr := range serversOf(b.t, b.url) {
		c := goredis.NewClient(&goredis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
		for {
			list, err := c.ClientList(context.Background()).Result()
			if err != nil {
				b.t.Fatalf("listing the clients of %s: %v", addr, err)
			}
			if !strings.Contains(list, "name="+name+" ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		_ = c.Close()
	}
}

// serversOf are the addresses of the servers that a URL leads to.
func serversOf(t *testing.T, url string) []string {
	scheme, rest, _ := strings.Cut(url, "://")
	hosts, master, _ := strings.Cut(rest, "/")
	if scheme != "redis+sentinel" {
		return strings.Split(hosts, ",")
	}
	s := goredis.NewSentinelClient(&goredis.Options{Addr: strings.Split(hosts, ",")[0]})
	defer func() { _ = s.Close() }()
	at, err := s.GetMasterAddrByName(context.Background(), master).Result()
	if err != nil {
		t.Fatalf("asking Sentinel: %v", err)
	}
	return []string{net.JoinHostPort(at[0], at[1])}
}

func (b *backend) Close() { b.kill() }
