package paywall

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bodies that are read before anything is paid take so much of memory, all together, until their requests end.
func TestRoomForKeyedBodies(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil)
	e := c.instances[0].engine
	e.bodies.most = 1000
	started, release := make(chan struct{}), make(chan struct{})
	c.serve = func(http.ResponseWriter, *http.Request) {
		close(started)
		<-release
	}
	body := strings.Repeat("b", 600)
	first, second := c.sign(0, 1, ""), c.sign(0, 2, "")
	ask := func(header, body, key string) reply {
		return c.ask(0, http.MethodPost, "/x", body, headerSignature, header, headerIdempotencyKey, key)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := ask(first, body, "k"); a.status != http.StatusOK {
			t.Errorf("the first: %d %s", a.status, a.body)
		}
	})
	<-started
	if a := ask(second, body, "k"); !isProblem(a, http.StatusServiceUnavailable, codeNoRoom) || a.header.Get("Retry-After") == "" {
		t.Errorf("another one at the same time: %d %v %s", a.status, a.header, a.body)
	}
	if n := e.bodies.taken.Load(); n != int64(len(body)) {
		t.Errorf("%d bytes are held for one body of %d", n, len(body))
	}
	c.serve = func(http.ResponseWriter, *http.Request) {}
	if a := ask(second, body[:300], "short"); a.status != http.StatusOK {
		t.Errorf("a short one: %d %s", a.status, a.body)
	}
	close(release)
	wg.Wait()
	if a := ask(c.sign(0, 2, ""), body, "k"); a.status != http.StatusOK {
		t.Errorf("after the first: %d %s", a.status, a.body)
	}
	if n := e.bodies.taken.Load(); n != 0 {
		t.Errorf("%d bytes are held for nobody", n)
	}
	c.saw(3, 3*cent)
}

// A client that does not send the body of its request is not waited for; who did has all the time its answer takes.
func TestKeyedBodyInTime(t *testing.T) {
	const patience = time.Second
	c := newCluster(t, 1, Settings{}, nil, func(config *Config) { config.BodyTimeout = patience })
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.instances[0].server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, err = fmt.Fprintf(conn, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n%s: k\r\n%s: %s\r\n\r\nhalf",
		headerIdempotencyKey, headerSignature, c.sign(0, 1, ""))
	if err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(conn)
	res, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal("a body that does not end is waited for:", err)
	}
	text, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if a := (reply{status: res.StatusCode, body: string(text)}); !isProblem(a, http.StatusRequestTimeout, codeBody) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if _, err := from.ReadByte(); err != io.EOF {
		t.Error("the connection is still open:", err)
	}
	c.saw(0, 0)
	if s := c.states(); len(s) != 0 {
		t.Errorf("payments: %v", s)
	}

	c.serve = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(3 * patience):
			_, _ = w.Write([]byte("slow"))
		}
	}
	// The upstream's call for a GET ends with its client, or what is taken for its end.
	if a := c.ask(0, http.MethodGet, "/x", "body", headerSignature, c.sign(0, 1, ""), headerIdempotencyKey, "k"); a.status != http.StatusOK || a.body != "slow" {
		t.Errorf("a slow answer: %d %s", a.status, a.body)
	}
	c.saw(1, cent)
}
