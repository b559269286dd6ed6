package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// toxiproxy is the proxy of that name in a process of its own: it breaks connections between an instance and its store.
type toxiproxy struct {
	api    string
	client *http.Client
}

// startToxiproxy builds it from the tools of this repository and runs it until the test ends.
func startToxiproxy(t *testing.T, dir, api string) *toxiproxy {
	t.Helper()
	bin := filepath.Join(dir, "toxiproxy")
	build := exec.Command("go", "build", "-modfile=tools/go.mod", "-o", bin, "github.com/Shopify/toxiproxy/v2/cmd/server")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building toxiproxy: %v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "toxiproxy.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	h, p, _ := net.SplitHostPort(api)
	cmd := exec.Command(bin, "-host", h, "-port", p)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	x := &toxiproxy{api: "http://" + api, client: &http.Client{Timeout: 10 * time.Second, Transport: new(http.Transport)}}
	t.Cleanup(x.client.CloseIdleConnections)
	for range 100 {
		if err = x.call(http.MethodGet, "/version", nil); err == nil {
			return x
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("toxiproxy does not answer: ", err)
	return nil
}

func (x *toxiproxy) call(method, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequest(method, x.api+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := x.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("toxiproxy: %s %s: %s %s", method, path, resp.Status, text)
	}
	return err
}

// proxy opens a way from listen to upstream.
func (x *toxiproxy) proxy(name, listen, upstream string) error {
	return x.call(http.MethodPost, "/proxies", map[string]any{"name": name, "listen": listen, "upstream": upstream, "enabled": true})
}

// faults are what can happen to the way of that name.
func (x *toxiproxy) faults(name string) []fault {
	list := []fault{{
		kind: "store's connections cut", target: name, least: 200 * time.Millisecond, most: 4 * time.Second, weight: 2,
		begin: func() error { return x.call(http.MethodPost, "/proxies/"+name, map[string]any{"enabled": false}) },
		end:   func() error { return x.call(http.MethodPost, "/proxies/"+name, map[string]any{"enabled": true}) },
	}}
	toxic := func(kind, toxicType, stream string, attributes map[string]any) {
		list = append(list, fault{
			kind: kind, target: name, least: time.Second, most: 5 * time.Second, weight: 1,
			begin: func() error {
				return x.call(http.MethodPost, "/proxies/"+name+"/toxics", map[string]any{
					"name": "fault", "type": toxicType, "stream": stream, "toxicity": 1, "attributes": attributes,
				})
			},
			end: func() error { return x.call(http.MethodDelete, "/proxies/"+name+"/toxics/fault", nil) },
		})
	}
	toxic("store is slow", "latency", "downstream", map[string]any{"latency": 300, "jitter": 250})
	toxic("store's connections reset", "reset_peer", "upstream", map[string]any{"timeout": 150})
	toxic("store's answers lost", "limit_data", "downstream", map[string]any{"bytes": 3000})
	toxic("store's answers held back", "timeout", "downstream", map[string]any{"timeout": 1500})
	toxic("store's questions lost", "timeout", "upstream", map[string]any{"timeout": 1500})
	return list
}
