//go:build unix

package service_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/service"
)

func startRedis(t *testing.T, o service.RedisOptions) *service.Redis {
	t.Helper()
	r, err := service.StartRedis(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// What was written survives SIGKILL and a restart; a paused server answers nothing until it goes on; a stopped one leaves nothing.
func TestRedis(t *testing.T) {
	r := startRedis(t, service.RedisOptions{Settings: map[string]string{"databases": "3"}})
	do := func(want string, args ...any) {
		t.Helper()
		got, err := r.Do(t.Context(), args...)
		if err != nil || got != want {
			t.Errorf("%v: %v, %v; want %s", args, got, err, want)
		}
	}
	do("OK", "SET", "a", "1")
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(t.Context(), "GET", "a"); err == nil {
		t.Error("a dead server answers")
	}
	if err := errors.Join(r.Pause()); err == nil {
		t.Error("a dead server was paused")
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	do("1", "GET", "a")
	if err := r.Restart(t.Context()); err != nil { // in good order
		t.Fatal(err)
	}
	do("1", "GET", "a")
	if err := r.Pause(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := r.Do(context.WithoutCancel(t.Context()), "GET", "a")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("a paused server answers: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := r.Continue(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Dir()); !os.IsNotExist(err) {
		t.Errorf("its folder is left: %v", err)
	}
}

func TestRedisSettings(t *testing.T) {
	if _, err := service.StartRedis(t.Context(), service.RedisOptions{Settings: map[string]string{"nonsense": "1"}}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a setting that does not exist: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := service.StartRedis(t.Context(), service.RedisOptions{}); err == nil || !strings.Contains(err.Error(), "apt install redis-server") {
		t.Errorf("without the program: %v", err)
	}
}

func TestRedisCluster(t *testing.T) {
	c, err := service.StartRedisCluster(t.Context(), 3, 1, service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if len(c.Primaries) != 3 || len(c.Replicas) != 3 || strings.Count(c.URL(), ",") != 5 {
		t.Errorf("%d primaries, %d replicas, %s", len(c.Primaries), len(c.Replicas), c.URL())
	}
	for i, r := range append(c.Primaries, c.Replicas...) {
		role, err := r.Do(t.Context(), "ROLE")
		list, _ := role.([]any)
		want := "master"
		if i >= 3 {
			want = "slave"
		}
		if err != nil || len(list) == 0 || list[0] != want {
			t.Errorf("node %d is %v (%v), want %s", i, role, err, want)
		}
	}
}

func TestRedisSentinel(t *testing.T) {
	s, err := service.StartRedisSentinel(t.Context(), 1, service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	master, err := s.Master(t.Context())
	if err != nil || master != s.Servers[0] {
		t.Fatalf("the primary is %v, %v", master, err)
	}
	if err := master.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if now, err := s.Master(t.Context()); err == nil && now == s.Servers[1] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody was promoted")
		}
	}
	if err := master.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context(), 1); err != nil {
		t.Error(err)
	}
}
