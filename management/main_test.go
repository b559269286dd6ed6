package management_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	base, _    = x402.LookupNetwork("base")
	sepolia, _ = x402.LookupNetwork("base-sepolia")
)

// office is an API over a ledger in memory, whose clock the test turns.
type office struct {
	t      testing.TB
	store  *storetest.Memory
	shop   management.Shop
	config management.Config
	clock  atomic.Int64
	remote *management.API // with keys
	local  *management.API // the machine's own
	away   atomic.Bool     // the ledger can't be opened
	log    bytes.Buffer
	nonce  int64
	host   string // of claims
}

func newOffice(t testing.TB, change ...func(*management.Config)) *office {
	t.Helper()
	o := &office{t: t, host: "api.example.com"}
	o.clock.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro())
	o.store = storetest.NewMemory(func() time.Time { return time.UnixMicro(o.clock.Load()) }, false)
	o.shop = management.Shop{
		Store: o.store, Networks: []x402.Network{base, sepolia},
		Plans: []management.Plan{{
			Name: "day", Routes: "reports", TTLSeconds: 86400,
			Prices: []management.PlanPrice{{Network: base.ID, Amount: "1000000"}, {Network: sepolia.ID, Amount: "1000000"}},
		}},
		Settings:    management.Settings{Store: "memory", Networks: []management.NetworkSettings{{Network: base.ID}, {Network: sepolia.ID}}},
		Revoke:      o.store.Revoke,
		PlanRefunds: func(context.Context, int) (management.RefundPlan, error) { return management.RefundPlan{}, nil },
		Wallets: func(context.Context) ([]management.Wallet, error) {
			return []management.Wallet{{Network: base.ID, Role: "gas"}, {Network: sepolia.ID, Role: "gas"}}, nil
		},
	}
	o.config = management.Config{
		Open: func(context.Context) (*management.Shop, func(), error) {
			if o.away.Load() {
				return nil, nil, io.ErrUnexpectedEOF
			}
			s := o.shop
			return &s, func() {}, nil
		},
		Logger: slog.New(slog.NewJSONHandler(&o.log, nil)),
	}
	for _, f := range change {
		f(&o.config)
	}
	var err error
	if o.remote, err = management.New(o.config); err != nil {
		t.Fatal(err)
	}
	own := o.config
	own.Local, own.Prefix = true, "/x402"
	if o.local, err = management.New(own); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) pass(d time.Duration) { o.clock.Add(d.Microseconds()) }

// key makes a key as the machine's owner does.
func (o *office) key(mode apikey.Mode, life time.Duration, scopes ...apikey.Scope) (apikey.Key, string) {
	o.t.Helper()
	if len(scopes) == 0 {
		scopes = apikey.Scopes()
	}
	keys := apikey.Keys{Store: o.store, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	k, s, err := keys.Create(o.t.Context(), apikey.Grantor{Actor: "admin", Local: true}, apikey.Request{
		Mode: mode, Label: "a test", Scopes: scopes, Life: life,
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return k, s.Reveal()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string {
	var e management.Envelope
	if json.Unmarshal([]byte(a.body), &e) != nil {
		return ""
	}
	return e.Error.Code
}

func decode[T any](t testing.TB, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status >= 300 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v
}

// ask makes a request; headers are names and values in turn.
func ask(t testing.TB, h http.Handler, method, path, body string, headers ...string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if body != "" && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Result().Header, w.Body.String()}
}

// live asks with a live key.
func (o *office) live(secret, method, path, body string, headers ...string) answer {
	o.t.Helper()
	return ask(o.t, o.remote, method, path, body, append([]string{"Authorization", "Bearer " + secret, "X-Network", "mainnet"}, headers...)...)
}

func (o *office) test(secret, method, path, body string, headers ...string) answer {
	o.t.Helper()
	return ask(o.t, o.remote, method, path, body, append([]string{"Authorization", "Bearer " + secret, "X-Network", "testnet"}, headers...)...)
}

// claim makes a payment, and takes it through the changes.
func (o *office) claim(n x402.Network, payer int64, plan string, changes ...ledger.Change) ledger.Payment {
	o.t.Helper()
	o.nonce++
	p := ledger.Payment{
		AuthorizationID: x402.AuthorizationID{
			ChainID: n.ChainID, Asset: n.Asset.Address, Payer: common.BigToAddress(big.NewInt(payer)), Nonce: common.BigToHash(big.NewInt(o.nonce)),
		},
		PayTo: common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"), Amount: *uint256.NewInt(10_000),
		ValidBefore: uint64(time.UnixMicro(o.clock.Load()).Unix() + 3600), Flow: ledger.FlowUpfront,
		Binding: ledger.Binding{Route: "reports", Plan: plan, Method: "GET", Host: o.host, URI: "/reports/1?x=1"},
	}
	var err error
	if p.ID, err = ledger.NewID(rand.Reader, p.Payer); err != nil {
		o.t.Fatal(err)
	}
	if p, err = o.store.Claim(o.t.Context(), p, ledger.Change{Actor: "request", Hold: time.Second}); err != nil {
		o.t.Fatal(err)
	}
	for _, c := range changes {
		c.Actor = "request"
		if c.Event == ledger.EventDeliver || c.Event == ledger.EventDelivered || c.Event == ledger.EventUndelivered {
			c.Fence = p.Hold.Fence
		}
		if p, err = o.store.Update(o.t.Context(), p.ID, p.Version, c); err != nil {
			o.t.Fatal(err)
		}
	}
	o.pass(time.Second)
	return p
}

// The steps of payments.
var (
	settled   = ledger.Change{Event: ledger.EventSettle, Transaction: common.HexToHash("0x01"), Block: 1, BlockHash: common.HexToHash("0x02")}
	delivered = []ledger.Change{settled, {Event: ledger.EventDeliver, Hold: time.Second}, {Event: ledger.EventDelivered}}
	failed    = []ledger.Change{settled, {Event: ledger.EventUndelivered, Reason: "upstream"}, {Event: ledger.EventRefundFailed, Reason: "over_limit"}}
)

func planned(until time.Time) []ledger.Change {
	return []ledger.Change{settled, {Event: ledger.EventDeliver, Hold: time.Second}, {Event: ledger.EventDelivered, PlanUntil: until}}
}
