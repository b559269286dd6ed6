package operator

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/redis"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// redises start Redis in each of its forms, and give its address.
var redises = map[string]func(context.Context, *testing.T) string{
	"single": func(ctx context.Context, t *testing.T) string {
		r, err := service.StartRedis(ctx, service.RedisOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Stop() })
		return r.URL() + "/3"
	},
	"cluster": func(ctx context.Context, t *testing.T) string {
		c, err := service.StartRedisCluster(ctx, 3, 0, service.RedisOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Stop() })
		return c.URL()
	},
	"sentinel": func(ctx context.Context, t *testing.T) string {
		s, err := service.StartRedisSentinel(ctx, 1, service.RedisOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Stop() })
		return s.URL()
	},
}

// A ledger moves into Redis, whichever way that is run, and is used and looked at there.
func TestOperatorMovesToRedis(t *testing.T) {
	for name, start := range redises {
		t.Run(name, func(t *testing.T) {
			url := start(t.Context(), t)
			o := newOffice(t)
			o.sell(t, 4)
			o.anchor(t)
			o.copyTo(t, url)
			moved := o.options
			moved.Store = "redis " + url
			o.reload(t, moved)
			if a, _ := rig.NewBuyer(t, 1).Buy(o.URL("/weather")); a.Status != http.StatusOK {
				t.Fatalf("after the move: %d %s", a.Status, a.Body)
			}
			for _, way := range [][]string{{"--address", o.admin}, {"--store", url}} {
				r := o.run(t, t.TempDir(), append([]string{"payments", "list"}, way...)...)
				if got := result[opPage](t, r).Payments; len(got) != 6 || got[0].State != "DELIVERED" {
					t.Errorf("%v: %v", way, got)
				}
				r = o.run(t, t.TempDir(), append([]string{"payments", "list", "--payer", devnet.Payer(1).Address.Hex()}, way...)...)
				if got := result[opPage](t, r).Payments; len(got) != 3 {
					t.Errorf("%v of a payer: %v", way, got)
				}
				r = o.run(t, t.TempDir(), append([]string{"audit", "verify"}, way...)...)
				if report := result[ledger.Report](t, r); report.Payments != 6 || report.Anchors != 1 {
					t.Errorf("%v: %s", way, r.out)
				}
			}
		})
	}
}

// What Redis was told to forget is not missed, but only by who knows since when it keeps.
func TestOperatorVerifiesWhatRedisForgot(t *testing.T) {
	url := redises["single"](t.Context(), t)
	o := newOffice(t)
	o.sell(t, 3)
	o.anchor(t)
	if r := o.run(t, o.Dir, "ledger", "copy", "--from", "sqlite:"+o.path(), "--to", url); r.code != 0 {
		t.Fatal(r.err)
	}
	s, err := redis.Open(t.Context(), url, redis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Sweep(t.Context(), time.Microsecond, 100)
	if err != nil || gone < 3 || s.Close() != nil {
		t.Fatalf("%d forgotten, %v", gone, err)
	}
	if r := o.run(t, o.Dir, "audit", "verify", "--store", url); r.code != 5 || decode[ledger.Report](t, r.out).Found == 0 {
		t.Errorf("without knowing it: code %d, %s", r.code, r.out)
	}
	r := o.run(t, o.Dir, "audit", "verify", "--store", url, "--kept-since", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	if report := result[ledger.Report](t, r); report.Forgotten < 18 || report.Payments != 1 || !strings.Contains(r.err, "forgotten") {
		t.Errorf("with a retention: %s%s", r.out, r.err)
	}
}
