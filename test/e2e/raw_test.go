package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func splitAddr(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// sendRaw sends a request byte for byte, as no HTTP client would, and reads the final answer. method is the request's.
func sendRaw(t *testing.T, addr, method string, request ...string) rig.Answer {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, strings.Join(request, "\r\n")+"\r\n\r\n"); err != nil {
		return rig.Answer{Err: err}
	}
	return readAnswer(bufio.NewReader(c), method)
}

func readAnswer(from *bufio.Reader, method string) rig.Answer {
	for {
		res, err := http.ReadResponse(from, &http.Request{Method: method})
		if err != nil {
			return rig.Answer{Err: err}
		}
		if res.StatusCode >= 100 && res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		return rig.Answer{Status: res.StatusCode, Header: res.Header, Body: string(body), Err: err}
	}
}
