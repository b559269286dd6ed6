package management

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The first, second and fourth item of the going-live checklist. The third is shown in test/webhooks, the fifth in test/limits, the sixth in
// management, and the list of what must be right in test/doctor.

// Going live is another network, its endpoint and another key in the environment, and nothing else: each key opens only what belongs to its network.
func TestChecklist1LiveKey(t *testing.T) {
	t.Setenv("X402_T_GAS", hex.EncodeToString(rig.GasKey()))
	o := newOffice(t, func(o *rig.Options) { o.Settler = "wallet {env.X402_T_GAS}" })
	o.sell()
	text := strings.NewReplacer("admin off", "admin "+o.admin, "network base-sepolia", "network {$X402_T_NETWORK}", "rpc "+o.Chain.URL(), "rpc {$X402_T_RPC}").
		Replace(o.Caddyfile(o.options))
	test, live := o.key("--mode", "test"), o.key("--mode", "live")
	asks := func(secret, network string) string {
		t.Helper()
		a := rig.NewBuyer(t, 1).Get(o.URL("/ops/v1/payments"), "Authorization", "Bearer "+secret, "X-Network", network)
		if a.Status != http.StatusOK {
			return decode[envelope](t, a.Body).Error.Code
		}
		if all := decode[list[payment]](t, a.Body); len(all.Data) == 0 {
			return "nothing"
		}
		return "payments"
	}
	for _, tc := range []struct{ network, rpc, testKey, liveKey string }{
		{"base-sepolia", o.Chain.URL(), "payments", "network_locked"},
		{"base", "http://" + rig.FreeAddr(t), "network_locked", "nothing"}, // a chain that does not answer yet
	} {
		t.Setenv("X402_T_NETWORK", tc.network)
		t.Setenv("X402_T_RPC", tc.rpc)
		if err := rig.LoadText(text); err != nil {
			t.Fatal(err)
		}
		got := [...]string{asks(test.Secret, "testnet"), asks(test.Secret, "mainnet"), asks(live.Secret, "mainnet"), asks(live.Secret, "testnet")}
		if want := [...]string{tc.testKey, "apikey.network_mismatch", tc.liveKey, "apikey.network_mismatch"}; got != want {
			t.Errorf("on %s: %q, want %q", tc.network, got, want)
		}
	}
	for _, k := range []apiKey{test, live} {
		if _, out, _ := o.command("list"); !strings.Contains(out, k.ID) || strings.Contains(out, k.Secret[14:]) {
			t.Errorf("a secret is shown twice, or its key not at all: %s", out)
		}
	}
	o.leaks()
}

// Both keys are good for seven days, or as long as was said; then the older one is not, and meanwhile its users are told.
func TestChecklist2Rotation(t *testing.T) {
	o := newOffice(t)
	store, err := sqlite.Open(t.Context(), filepath.Join(o.Dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	rotated := func(ago time.Duration) (older, newer string) {
		t.Helper()
		keys := apikey.Keys{Store: before{store, ago}, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)}
		by := apikey.Grantor{Actor: "admin", Local: true}
		k, first, err := keys.Create(t.Context(), by, apikey.Request{Mode: apikey.Test, Label: "a shop", Scopes: []apikey.Scope{apikey.PaymentsRead}})
		if err != nil {
			t.Fatal(err)
		}
		_, _, second, err := keys.Rotate(t.Context(), by, k.ID, apikey.DefaultOverlap)
		if err != nil {
			t.Fatal(err)
		}
		return first.Reveal(), second.Reveal()
	}
	const week = 7 * 24 * time.Hour
	for ago, want := range map[time.Duration]string{0: "", week - time.Minute: "", week + time.Minute: "apikey.expired"} {
		older, newer := rotated(ago)
		a := o.ops(older, http.MethodGet, "/v1/payments", "")
		switch {
		case want == "" && (a.Status != http.StatusOK || a.Header.Get("X-Api-Key-Successor") == ""):
			t.Errorf("rotated %s ago, the older key: %d %v %s", ago, a.Status, a.Header, a.Body)
		case want != "" && (a.Status != http.StatusUnauthorized || decode[envelope](t, a.Body).Error.Code != want):
			t.Errorf("rotated %s ago, the older key: %d %s", ago, a.Status, a.Body)
		}
		if a := o.ops(newer, http.MethodGet, "/v1/payments", ""); a.Status != http.StatusOK || a.Header.Get("X-Api-Key-Successor") != "" {
			t.Errorf("rotated %s ago, the newer key: %d %v", ago, a.Status, a.Header)
		}
	}
}

// Fifty requests with one Idempotency-Key, each with a payment of its own, are one purchase: one transfer, one call of the upstream, one answer.
func TestChecklist4Idempotency(t *testing.T) {
	o := newOffice(t)
	b := rig.NewBuyer(t, 4)
	url := o.URL("/weather")
	offer := b.Offer(url)
	buy := func(body string) rig.Answer {
		return b.Do(t.Context(), http.MethodPost, url, body, x402.HeaderSignature, b.Sign(offer, 0), "Idempotency-Key", "one-of-many")
	}
	var answers [51]rig.Answer
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { answers[i] = buy("rome") })
	}
	wg.Wait()
	answers[50] = buy("rome")
	fresh := 0
	for _, a := range answers {
		switch {
		case a.Status == http.StatusOK && a.Body == "sunny" && a.Header.Get("Idempotency-Replayed") == "":
			fresh++
		case a.Status == http.StatusOK && a.Body == "sunny": // the same answer again
		case a.Status == http.StatusConflict && strings.Contains(a.Body, "idempotency.in_progress"):
		default:
			t.Errorf("%d %v %s", a.Status, a.Err, a.Body)
		}
	}
	if fresh != 1 || o.Upstream.Calls() != 1 || o.Earned() != 10_000 {
		t.Errorf("%d answers that are no replay, %d calls, earned %d", fresh, o.Upstream.Calls(), o.Earned())
	}
	if a := buy("paris"); a.Status != http.StatusUnprocessableEntity || !strings.Contains(a.Body, "idempotency.conflict") || o.Earned() != 10_000 {
		t.Errorf("another request under the key: %d %s, earned %d", a.Status, a.Body, o.Earned())
	}
}
