package flows

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const cent = 10_000 // atomic units of a token with 6 decimals

// heldSite sells everything by the flow authorization, and holds back little.
const heldSite = `
	x402 $0.01 {
		flow authorization {
			buffer 64KiB
		}
	}
	x402_service
	reverse_proxy {upstream}
`

// shop is a rig whose upstream is told by the test what to do.
type shop struct {
	*rig.Rig
	t      *testing.T
	answer atomic.Pointer[http.HandlerFunc]
}

func open(t *testing.T, o rig.Options) *shop {
	t.Helper()
	s := &shop{t: t}
	s.serve(rig.Echo)
	o.Upstream = func(w http.ResponseWriter, r *http.Request) { (*s.answer.Load())(w, r) }
	s.Rig = rig.New(t, o)
	return s
}

func (s *shop) serve(h http.HandlerFunc) { s.answer.Store(&h) }

// pay sends a request that is paid for by b, and gives the header that paid.
func (s *shop) pay(b *rig.Buyer, method, path, body string, header ...string) (rig.Answer, string) {
	s.t.Helper()
	signed := b.Sign(b.Offer(s.URL(path)), 0)
	return s.again(b, method, path, body, signed, header...), signed
}

func (s *shop) again(b *rig.Buyer, method, path, body, signed string, header ...string) rig.Answer {
	s.t.Helper()
	return b.Do(s.t.Context(), method, s.URL(path), body, append(header, x402.HeaderSignature, signed)...)
}

// state is what anybody may know of a payment.
func (s *shop) state(b *rig.Buyer, id string) string {
	s.t.Helper()
	if id == "" {
		return ""
	}
	var p struct{ State string }
	a := b.Get(s.URL("/x402/payments/" + id))
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil {
		s.t.Fatalf("the status of %q: %d %s", id, a.Status, a.Body)
	}
	return p.State
}

// saw checks what was earned, and how often the upstream was called.
func (s *shop) saw(what string, calls int, earned uint64) {
	s.t.Helper()
	if s.Upstream.Calls() != calls || s.Earned() != earned {
		s.t.Errorf("%s: the upstream was called %d times and %d earned, want %d and %d", what, s.Upstream.Calls(), s.Earned(), calls, earned)
	}
}

// receipt is what an answer says of its payment; nil if it says nothing.
func receipt(t *testing.T, a rig.Answer) *x402.SettlementResponse {
	t.Helper()
	value := a.Header.Get(x402.HeaderResponse)
	if value == "" {
		return nil
	}
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(value, 1<<16, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// paid checks that an answer is one that was paid for.
func (s *shop) paid(what string, b *rig.Buyer, a rig.Answer) {
	s.t.Helper()
	r := receipt(s.t, a)
	if a.Err != nil || a.Status != http.StatusOK || r == nil || !r.Success || r.Transaction == "" {
		s.t.Fatalf("%s: %d %v %v %.200s", what, a.Status, a.Err, a.Header, a.Body)
	}
	if got := s.state(b, a.Header.Get("X-Payment-Id")); got != "DELIVERED" {
		s.t.Errorf("%s: the payment is %s", what, got)
	}
}

// free checks that an answer came through, and cost nothing.
func (s *shop) free(what string, b *rig.Buyer, a rig.Answer, status int) {
	s.t.Helper()
	if a.Err != nil || a.Status != status || receipt(s.t, a) != nil || a.Header.Get("X-Payment-Status") != "void" {
		s.t.Fatalf("%s: %d %v %v %.200s, want %d", what, a.Status, a.Err, a.Header, a.Body, status)
	}
	if got := s.state(b, a.Header.Get("X-Payment-Id")); got != "VOID" {
		s.t.Errorf("%s: the payment is %s", what, got)
	}
}

func code(a rig.Answer) string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(a.Body), &p)
	return p.Code
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass: " + what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// insist sends a request until it is not put off any more.
func (s *shop) insist(b *rig.Buyer, method, path, body, signed string) (a rig.Answer) {
	s.t.Helper()
	waitFor(s.t, "an answer that is not put off", func() bool {
		a = s.again(b, method, path, body, signed)
		return a.Status != http.StatusServiceUnavailable
	})
	return a
}

// leave sends a paid request and hangs up when there is a word on until.
func (s *shop) leave(b *rig.Buyer, method, path, body, signed string, until <-chan struct{}) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	go func() {
		select {
		case <-until:
			cancel()
		case <-ctx.Done():
		}
	}()
	if a := b.Do(ctx, method, s.URL(path), body, x402.HeaderSignature, signed); a.Err == nil {
		s.t.Fatalf("the request was answered: %d %s", a.Status, a.Body)
	}
}

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// execute sends an authorization to the chain, as anybody can who has its signature.
func execute(t *testing.T, s *shop, a *x402.Authorization, sig []byte) {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), s.Chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	who := devnet.Developer(5)
	nonce, err := client.PendingNonceAt(t.Context(), who.Address)
	if err != nil {
		t.Fatal(err)
	}
	token := devnet.TokenAddress
	tx, err := types.SignNewTx(who.Key, types.LatestSignerForChainID(new(big.Int).SetUint64(devnet.ChainID)), &types.DynamicFeeTx{
		ChainID: new(big.Int).SetUint64(devnet.ChainID), Nonce: nonce, Gas: 200_000, To: &token, Data: a.TransferCalldata(sig),
		GasFeeCap: big.NewInt(100e9), GasTipCap: big.NewInt(1e9),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SendTransaction(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
}
