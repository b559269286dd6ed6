package chaos

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// backend is a store that the instances share.
type backend struct {
	// config is the argument of `store` for the i-th instance: each has a way of its own to the store.
	config func(i int) string
	// open opens the store for the harness, past all faults.
	open func(ctx context.Context) (ledger.Store, error)
	// faults are what can happen to the store and to the ways there.
	faults []fault
	// forgets: what the store acknowledged may be gone after a fault.
	forgets bool
}

// backends makes each store that the test knows; ways are how many instances share it.
var backends = map[string]func(t *testing.T, dir string, ways int) *backend{
	"sqlite":   newSQLite,
	"postgres": newPostgres,
	"redis":    newRedis,
}

// newSQLite is a file that all instances have open: those of one machine can share it. Nothing but an instance can fail.
func newSQLite(_ *testing.T, dir string, _ int) *backend {
	path := filepath.Join(dir, "ledger.db")
	return &backend{
		config: func(int) string { return "sqlite " + path },
		open:   func(ctx context.Context) (ledger.Store, error) { return sqlite.Open(ctx, path, sqlite.Options{}) },
	}
}

// newPostgres is a server of its own, which dies and comes back with its data.
func newPostgres(t *testing.T, dir string, ways int) *backend {
	server, err := service.StartPostgres(t.Context(), service.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	name, err := server.CreateDatabase(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	direct := server.URL(name)
	through := paths(t, dir, loopback(server.Port()), ways)
	return &backend{
		config: func(i int) string { return "postgres " + strconv.Quote(redirected(direct, through.addrs[i])) },
		open: func(ctx context.Context) (ledger.Store, error) {
			return postgres.Open(ctx, direct, postgres.Options{})
		},
		faults: append(through.faults, serverFaults("PostgreSQL", server)...),
	}
}

// newRedis is a single server whose every write is on the disk before it counts.
func newRedis(t *testing.T, dir string, ways int) *backend {
	server, err := service.StartRedis(t.Context(), service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	through := paths(t, dir, server.Addr(), ways)
	return &backend{
		config: func(i int) string { return "redis " + redirected(server.URL(), through.addrs[i]) },
		open: func(ctx context.Context) (ledger.Store, error) {
			return redis.Open(ctx, server.URL(), redis.Options{Durable: true})
		},
		faults: append(through.faults, serverFaults("Redis", server)...),
	}
}

// ways are the ways to a server, one for each instance.
type ways struct {
	addrs  []string
	faults []fault
}

// paths opens ways to a server that can be broken.
func paths(t *testing.T, dir, server string, n int) ways {
	x := startToxiproxy(t, dir, rig.FreeAddr(t))
	var w ways
	for i := range n {
		name, addr := fmt.Sprintf("way-%d", i), rig.FreeAddr(t)
		if err := x.proxy(name, addr, server); err != nil {
			t.Fatal(err)
		}
		w.addrs = append(w.addrs, addr)
		w.faults = append(w.faults, x.faults(name)...)
	}
	return w
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// redirected is the connection string s with another address.
func redirected(s, addr string) string {
	u, err := url.Parse(s)
	if err != nil {
		return s
	}
	u.Host = addr
	return u.String()
}

// recordsPage is how many payments are read at once.
const recordsPage = 500

// readLedger reads all payments and wallets that the store has.
func readLedger(ctx context.Context, b *backend) (records []ledger.Record, gas []ledger.Wallet, err error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	after := ""
	for {
		page, err := s.Records(ctx, after, recordsPage)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the ledger: %w", err)
		}
		if records = append(records, page...); len(page) < recordsPage {
			break
		}
		after = page[len(page)-1].Payment.ID
	}
	gas, err = s.Wallets(ctx)
	return records, gas, err
}

// anchorEvery is how often the trails are anchored here: in a shop it is done by the hour.
const anchorEvery = 5 * time.Second

// anchor anchors what is a minute old, again and again until ctx ends: an entry that comes in later than that is missed then.
func anchor(ctx context.Context, s ledger.Store) {
	for ctx.Err() == nil {
		_, _ = ledger.NextAnchor(ctx, s, s.Now()) // there may be nothing new, and the store may be broken just now
		select {
		case <-ctx.Done():
		case <-time.After(anchorEvery):
		}
	}
}

// verify lets the ledger look at itself: its trails, and the anchors that fix them.
func verify(ctx context.Context, b *backend) (ledger.Report, error) {
	s, err := b.open(ctx)
	if err != nil {
		return ledger.Report{}, err
	}
	defer s.Close()
	return ledger.Verify(ctx, s, ledger.VerifyOptions{})
}

// waiting counts the payments that something must still happen to, by what they wait for.
func waiting(records []ledger.Record) map[string]int {
	count := make(map[string]int)
	for i := range records {
		switch p := &records[i].Payment; {
		case p.Settlement == ledger.Claimed, p.Settlement == ledger.Settling:
			count[string(p.Settlement)]++
		case p.Settlement == ledger.Settled && p.Unserved():
			count["paid, not served"]++
		case p.Refund == ledger.RefundPending:
			count["to be paid back"]++
		}
	}
	return count
}
