package postgres_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) storetest.Backend {
		b := &backend{t: t, now: now, name: pooled(t)}
		b.open()
		return b
	})
}

// backend crashes a store by cutting its network: what its process has not sent will never be sent, and what is on its way is
// ended by the database, or not, as when the process was killed.
type backend struct {
	t    *testing.T
	now  func() time.Time
	name string

	wire   *wire
	s      *postgres.Store
	second *postgres.Store
}

func (b *backend) open() {
	b.wire = &wire{left: -1}
	b.s = b.instance()
}

func (b *backend) instance() *postgres.Store {
	b.t.Helper()
	s, err := postgres.Open(context.Background(), appURL(b.name),
		postgres.WithDial(postgres.Options{Now: b.now, MaxConns: 8}, b.wire.dial))
	if err != nil {
		b.t.Fatalf("opening: %v", err)
	}
	return s
}

func (b *backend) Store() ledger.Store { return b.s }

func (b *backend) Second() ledger.Store {
	if b.second == nil {
		b.second = b.instance()
	}
	return b.second
}

func (b *backend) Crash() {
	b.wire.cut()
	b.reopen()
}

func (b *backend) CrashDuring(steps int, f func(ledger.Store)) bool {
	b.wire.cutAfter(steps)
	f(b.s)
	inside := b.wire.cut()
	b.reopen()
	return inside
}

func (b *backend) reopen() {
	b.close()
	b.settle()
	b.open()
}

// settle waits until the database has ended what the dead instance left behind.
func (b *backend) settle() {
	b.t.Helper()
	observing.Lock()
	defer observing.Unlock()
	for sessions := 1; sessions > 0; {
		err := observer.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1", b.name).Scan(&sessions)
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *backend) Close() {
	b.close()
	b.settle()
	giveBack(b.t, b.name)
}

func (b *backend) close() {
	for _, s := range []*postgres.Store{b.s, b.second} {
		if s == nil {
			continue
		}
		if err := s.Close(); err != nil {
			b.t.Errorf("closing: %v", err)
		}
	}
	b.second = nil
}

var errCut = errors.New("the network is cut")

// wire is the network of one instance.
type wire struct {
	mu    sync.Mutex
	conns []net.Conn
	left  int  // messages until it is cut; negative: that is not planned
	dead  bool // it is cut
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, errors.Join(errCut, conn.Close())
	}
	w.conns = append(w.conns, conn)
	return &wired{Conn: conn, wire: w}, nil
}

// cut cuts it, and reports whether it was cut before.
func (w *wire) cut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.dead
	w.cutNow()
	return was
}

func (w *wire) cutNow() {
	w.dead = true
	for _, c := range w.conns {
		// No good-bye: what is not read yet is thrown away.
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	w.conns = nil
}

func (w *wire) cutAfter(steps int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = steps
}

// step counts a message, and reports whether it may go.
func (w *wire) step() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left == 0 {
		w.cutNow()
	}
	w.left--
	return !w.dead
}

type wired struct {
	net.Conn
	wire *wire
}

func (c *wired) Write(b []byte) (int, error) {
	if !c.wire.step() {
		return 0, errCut
	}
	return c.Conn.Write(b)
}
