package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-x402/caddy-x402/test/service"
)

// body is what is sold, by us and by the peer.
const body = `{"city":"Berlin","weather":"sunny","temperature":21}`

// brokenPath ends the paths of what the upstream can't give.
const brokenPath = "/broken"

// stage is what all measurements stand on.
type stage struct {
	config
	dir      string // for ledgers and logs
	caddy    string // the binary
	upstream string // its address
	server   *http.Server
	served   chan struct{}
	postgres *service.Postgres
	cells    int // how many folders were made

	// told is the header of the first request that the upstream was told the payment of.
	told atomic.Pointer[http.Header]
}

// setUp builds Caddy and starts the upstream, and the server of the store if it needs one.
func setUp(ctx context.Context, c config) (s *stage, err error) {
	s = &stage{config: c, dir: c.dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.tearDown())
		}
	}()
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "bench-"); err != nil {
			return s, fmt.Errorf("a folder: %w", err)
		}
	} else if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return s, fmt.Errorf("a folder: %w", err)
	}
	s.caddy = filepath.Join(s.dir, "caddy")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.caddy, "github.com/caddy-x402/caddy-x402/cmd/caddy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return s, fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	if err := s.startUpstream(ctx); err != nil {
		return s, err
	}
	if s.store == "postgres" {
		if s.postgres, err = service.StartPostgres(ctx, service.PostgresOptions{}); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *stage) startUpstream(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("starting the upstream: %w", err)
	}
	s.upstream, s.served = l.Addr().String(), make(chan struct{})
	s.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.told.Load() == nil && r.Header.Get("X-Payment-Id") != "" {
			told := r.Header.Clone()
			s.told.CompareAndSwap(nil, &told)
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		if strings.HasSuffix(r.URL.Path, brokenPath) {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte(body))
	})}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(l)
	}()
	return nil
}

// tearDown ends what setUp started.
func (s *stage) tearDown() (err error) {
	if s.server != nil {
		err = s.server.Close()
		<-s.served
	}
	if s.postgres != nil {
		err = errors.Join(err, s.postgres.Stop())
	}
	if s.config.dir == "" && s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// folder makes a new folder.
func (s *stage) folder(name string) (string, error) {
	s.cells++
	dir := filepath.Join(s.dir, strconv.Itoa(s.cells)+"-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("a folder: %w", err)
	}
	return dir, nil
}
