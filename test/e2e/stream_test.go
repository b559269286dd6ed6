package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const streams = `
	x402 {
		price $0.01
		plan day $0.10 {
			ttl 24h
		}
	}
	reverse_proxy {upstream}
`

// proofs gives the header that opens url: a payment by one buyer, and the token of another.
func proofs(t *testing.T, r *rig.Rig, url string) map[string][]string {
	t.Helper()
	payer, holder := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	token, _, _ := buyPlan(t, holder, r.URL("/plan"), "day")
	return map[string][]string{"payment": {x402.HeaderSignature, payer.Sign(payer.Offer(url), 0)}, "token": bearer(token)}
}

// open sends a request and leaves the body to the caller.
func open(ctx context.Context, t *testing.T, c *http.Client, method, url string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// The first event arrives while the upstream still holds the second back.
func TestEventsStream(t *testing.T) {
	next := make(chan struct{})
	r := rig.New(t, rig.Options{Site: streams, Upstream: func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/events" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}})
	for name, proof := range proofs(t, r, r.URL("/events")) {
		res := open(t.Context(), t, http.DefaultClient, http.MethodGet, r.URL("/events"), nil, proof...) //nolint:bodyclose // open sees to it
		lines := bufio.NewReader(res.Body)
		for i := range 3 {
			line, err := lines.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: event %d: %q %v", name, i, line, err)
			}
			_, _ = lines.ReadString('\n')
			next <- struct{}{} // nobody takes it if the upstream has gone on already
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("%s: at the end: %q %v", name, rest, err)
		}
	}
}

// An upstream that sends headers and flushes before it has anything to say is heard at once.
func TestHeadersComeBeforeTheBody(t *testing.T) {
	next := make(chan struct{})
	r := rig.New(t, rig.Options{
		Site: strings.Replace(streams, "reverse_proxy {upstream}", "reverse_proxy {upstream} {\n flush_interval -1\n }", 1),
		Upstream: func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/slow" {
				_ = http.NewResponseController(w).Flush()
				<-next
			}
		},
	})
	for name, proof := range proofs(t, r, r.URL("/slow")) {
		res := open(t.Context(), t, http.DefaultClient, http.MethodGet, r.URL("/slow"), nil, proof...) //nolint:bodyclose // open sees to it
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
		next <- struct{}{}
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// heapGrowth watches the heap until stop, which gives the most that it has grown by.
func heapGrowth() (stop func() uint64) {
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	start, end, most := inUse(), make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		for {
			peak = max(peak, inUse())
			select {
			case <-end:
				most <- peak
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(end)
		if peak := <-most; peak > start {
			return peak - start
		}
		return 0
	}
}

// A gibibyte goes through at flat memory, up and down.
func TestGibibyte(t *testing.T) {
	const size, limit = 1 << 30, 64 << 20
	var received atomic.Int64
	r := rig.New(t, rig.Options{Site: streams, Upstream: func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/down":
			_, _ = io.CopyN(w, zeros{}, size)
		case "/up":
			n, _ := io.Copy(io.Discard, req.Body)
			received.Store(n)
		}
	}})
	for name, proof := range proofs(t, r, r.URL("/down")) {
		stop := heapGrowth()
		res := open(t.Context(), t, http.DefaultClient, http.MethodGet, r.URL("/down"), nil, proof...) //nolint:bodyclose // open sees to it
		n, err := io.Copy(io.Discard, res.Body)
		if grown := stop(); n != size || err != nil || grown > limit {
			t.Errorf("down, %s: %d bytes, %v, heap grown by %d MiB", name, n, err, grown>>20)
		} else {
			t.Logf("down, %s: heap grown by %d MiB", name, grown>>20)
		}
	}
	b := rig.NewBuyer(t, 3)
	header := b.Sign(rig.Offered(t, b.Do(t.Context(), http.MethodPost, r.URL("/up"), "")), 0)
	stop := heapGrowth()
	res := open(t.Context(), t, http.DefaultClient, http.MethodPost, r.URL("/up"), io.LimitReader(zeros{}, size), x402.HeaderSignature, header) //nolint:bodyclose // open sees to it
	if grown := stop(); res.StatusCode != http.StatusOK || received.Load() != size || grown > limit {
		t.Errorf("up: %d, %d bytes, heap grown by %d MiB", res.StatusCode, received.Load(), grown>>20)
	}
}

// A client that waits for "100 Continue" is told to go on only once it has paid; unpaid it keeps its upload.
func TestExpectContinue(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, req *http.Request) {
		n, _ := io.Copy(io.Discard, req.Body)
		_, _ = fmt.Fprint(w, n)
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/up")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	var sent, told atomic.Int64
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { told.Add(1) }})
	body := func() io.Reader { return io.TeeReader(io.LimitReader(zeros{}, 10<<20), countWriter{&sent}) }

	unpaid := open(ctx, t, client, http.MethodPost, url, body(), "Expect", "100-continue") //nolint:bodyclose // open sees to it
	if unpaid.StatusCode != http.StatusPaymentRequired || told.Load() != 0 || sent.Load() > 0 {
		t.Errorf("unpaid: %d, told to go on %d times, %d bytes sent", unpaid.StatusCode, told.Load(), sent.Load())
	}
	header := b.Sign(rig.Offered(t, rig.Answer{Header: unpaid.Header}), 0)
	sent.Store(0)
	paid := open(ctx, t, client, http.MethodPost, url, body(), "Expect", "100-continue", x402.HeaderSignature, header) //nolint:bodyclose // open sees to it
	if got, _ := io.ReadAll(paid.Body); paid.StatusCode != http.StatusOK || string(got) != "10485760" || told.Load() != 1 {
		t.Errorf("paid: %d %s, told to go on %d times", paid.StatusCode, got, told.Load())
	}
}

type countWriter struct{ n *atomic.Int64 }

func (c countWriter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// An upstream's early hints, and other informational answers, don't decide anything and don't break anything.
func TestEarlyHints(t *testing.T) {
	r := rig.New(t, rig.Options{Site: streams, Upstream: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.Header().Set("X-Final", "yes")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte("done"))
	}})
	for name, proof := range proofs2(t, r, r.URL("/hints")) {
		var hints atomic.Int64
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints.Add(1)
			if h.Get(x402.HeaderResponse) != "" || h.Get("X-Access-Token") != "" {
				return errors.New("a receipt before the answer")
			}
			return nil
		}})
		res := open(ctx, t, http.DefaultClient, http.MethodGet, r.URL("/hints"), nil, proof...) //nolint:bodyclose // open sees to it
		text, err := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusAccepted || string(text) != "done" || err != nil || res.Header.Get("X-Final") != "yes" {
			t.Errorf("%s: %d %q %v %v", name, res.StatusCode, text, err, res.Header)
		}
		if (res.Header.Get(x402.HeaderResponse) != "") != (name == "payment") {
			t.Errorf("%s: the receipt is %q", name, res.Header.Get(x402.HeaderResponse))
		}
		t.Logf("%s: %d informational answers", name, hints.Load())
	}
}

// proofs2 is proofs where the upstream's answers to a purchase are not 200.
func proofs2(t *testing.T, r *rig.Rig, url string) map[string][]string {
	t.Helper()
	payer, holder := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	bought := holder.Get(url, x402.HeaderSignature, holder.Sign(holder.Offer(url), 1))
	token := bought.Header.Get("X-Access-Token")
	if token == "" {
		t.Fatalf("buying a plan: %d %s", bought.Status, bought.Body)
	}
	return map[string][]string{"payment": {x402.HeaderSignature, payer.Sign(payer.Offer(url), 0)}, "token": bearer(token)}
}

// A client that leaves in the middle of a stream ends the upstream's call, whatever the method: nobody streams to nobody.
func TestLeavingClientEndsTheStream(t *testing.T) {
	ended := make(chan struct{}, 1)
	r := rig.New(t, rig.Options{Site: streams, Upstream: func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/plan" {
			return
		}
		c := http.NewResponseController(w)
		for req.Context().Err() == nil {
			_, _ = w.Write([]byte("data: x\n\n"))
			_ = c.Flush()
			select {
			case <-req.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		ended <- struct{}{}
	}})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		payer := rig.NewBuyer(t, 5)
		url := r.URL("/events/" + method)
		header := payer.Sign(rig.Offered(t, payer.Do(t.Context(), method, url, "")), 0)
		ctx, leave := context.WithCancel(t.Context())
		res := open(ctx, t, http.DefaultClient, method, url, nil, x402.HeaderSignature, header) //nolint:bodyclose // open sees to it
		if _, err := res.Body.Read(make([]byte, 1)); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		leave()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s: the upstream still streams", method)
		}
	}
}

// h2c is a client that speaks HTTP/2 without TLS, as gRPC does between machines that know each other.
func h2cClient(t *testing.T) *http.Client {
	t.Helper()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// gRPC passes: HTTP/2 all the way, messages both ways while the call is open, and the status in the trailers.
func TestGRPC(t *testing.T) {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	p.SetHTTP1(true)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/plan" {
			return
		}
		if req.ProtoMajor != 2 || req.Header.Get("Te") != "trailers" {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		c := http.NewResponseController(w)
		buf := make([]byte, 5)
		for {
			if _, err := io.ReadFull(req.Body, buf); err != nil {
				break
			}
			_, _ = w.Write(buf)
			_ = c.Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", "well")
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	}))
	server.Config.Protocols = &p
	server.Start()
	t.Cleanup(server.Close)
	site := strings.Replace(streams, "reverse_proxy {upstream}", "reverse_proxy h2c://"+server.Listener.Addr().String(), 1)
	r := rig.New(t, rig.Options{Site: site, Global: "servers {\n protocols h1 h2c\n }"})
	payer, holder := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	url := r.URL("/pkg.Service/Method")
	token, _, _ := buyPlan(t, holder, r.URL("/plan"), "day")
	client := h2cClient(t)
	for name, proof := range map[string][]string{
		"payment": {x402.HeaderSignature, payer.Sign(rig.Offered(t, payer.Do(t.Context(), http.MethodPost, url, "")), 0)},
		"token":   bearer(token),
	} {
		body, send := io.Pipe()
		go func() { _, _ = send.Write([]byte("ping1")) }()
		res := open(t.Context(), t, client, http.MethodPost, url, body, append(proof, "Content-Type", "application/grpc", "Te", "trailers")...) //nolint:bodyclose // open sees to it
		if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
			t.Fatalf("%s: %s %d", name, res.Proto, res.StatusCode)
		}
		buf := make([]byte, 5)
		for _, message := range []string{"ping1", "ping2", "ping3"} {
			if message != "ping1" { // the call is open both ways
				_, _ = send.Write([]byte(message))
			}
			if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != message {
				t.Fatalf("%s: %q %v", name, buf, err)
			}
		}
		_ = send.Close()
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q %v", name, rest, err)
		}
		if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "well" || res.Trailer.Get("X-Late") != "unannounced" {
			t.Errorf("%s: trailers %v", name, res.Trailer)
		}
		if (res.Header.Get(x402.HeaderResponse) != "") != (name == "payment") {
			t.Errorf("%s: the receipt is %q", name, res.Header.Get(x402.HeaderResponse))
		}
	}
	// Unpaid, the call ends with the offer.
	unpaid := open(t.Context(), t, client, http.MethodPost, url, strings.NewReader("ping1"), "Content-Type", "application/grpc", "Te", "trailers") //nolint:bodyclose // open sees to it
	if unpaid.StatusCode != http.StatusPaymentRequired || unpaid.Header.Get(x402.HeaderRequired) == "" {
		t.Errorf("unpaid: %d", unpaid.StatusCode)
	}
}

// dial opens a connection that ends with the test.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}
