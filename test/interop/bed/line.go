package bed

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Line is a network between a client and a shop that can break.
type Line struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// NewLine lays a line to the shop; it ends with the test.
func NewLine(t testing.TB, s *Shop) *Line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{listener: listener, to: s.Rig.Addr, conns: map[net.Conn]bool{}}
	l.running.Go(l.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.Cut()
		l.running.Wait()
	})
	return l
}

// URL is the address of a path at the line's end.
func (l *Line) URL(path string) string { return "http://" + l.listener.Addr().String() + path }

// Cut breaks every connection at once. Nothing more gets through them; new ones may be made.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Close()
	}
	clear(l.conns)
}

func (l *Line) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		shop, err := net.Dial("tcp", l.to)
		if err != nil || !l.hold(client, shop) {
			_ = client.Close()
			continue
		}
		l.running.Go(func() { join(client, shop) })
		l.running.Go(func() { join(shop, client) })
	}
}

// hold takes a pair of connections for Cut, unless all has ended.
func (l *Line) hold(client, shop net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		_ = shop.Close()
		return false
	}
	l.conns[client], l.conns[shop] = true, true
	return true
}

// join carries bytes one way; where one side ends, so does the other.
func join(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}
