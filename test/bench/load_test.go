package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A cell is measured for its window, and longer while fewer sales than payers have ended, in whole steps, but not for ever.
func TestPeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		ended time.Duration // when as many sales had ended as there are payers
		want  time.Duration
	}{
		"in time":      {ended: 7 * time.Second, want: 8 * time.Second},
		"late":         {ended: 9 * time.Second, want: 10 * time.Second},
		"later":        {ended: 13 * time.Second, want: 14 * time.Second},
		"not at all":   {ended: time.Hour, want: 18 * time.Second},
		"told to stop": {ended: -1, want: 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p := &period{over: make(chan struct{}), times: times{
					from: time.Now().Add(time.Second), window: 8 * time.Second, step: 2 * time.Second, extra: 10 * time.Second,
				}}
				if tc.ended < 0 {
					cancel()
				}
				end := time.AfterFunc(time.Second+tc.ended, func() { p.ended.Add(5) })
				defer end.Stop()
				go p.keep(ctx, 5)
				<-p.over
				if took := p.to.Sub(p.from); took != tc.want {
					t.Errorf("it took %s, want %s", took, tc.want)
				}
			})
		})
	}
}

// What goes wrong with a purchase is told in few words, and whether a payment was sent.
func TestPair(t *testing.T) {
	w := new(wallet)
	s, err := w.signed(1, price)
	if err != nil {
		t.Fatal(err)
	}
	offer := func(amount uint64) string {
		r := x402.NewRequirements(devnet.Network(), payTo, uint256.NewInt(amount), time.Minute, "", "")
		header, err := x402.EncodeHeader(x402.PaymentRequired{X402Version: 2, Error: "pay", Accepts: []x402.Requirements{r}})
		if err != nil {
			t.Fatal(err)
		}
		return header
	}
	receipt := func(r x402.SettlementResponse) string {
		header, err := x402.EncodeHeader(r)
		if err != nil {
			t.Fatal(err)
		}
		return header
	}
	tests := map[string]struct {
		unpaid, status int
		amount         uint64
		receipt        string
		why            string
		sent           bool
	}{
		"sold":              {unpaid: 402, amount: price, status: 200, receipt: receipt(x402.SettlementResponse{Success: true, Transaction: hash(7).Hex()}), sent: true},
		"free":              {unpaid: 200, why: "no offer: 200"},
		"another price":     {unpaid: 402, amount: price + 1, why: "the offer is another than expected"},
		"not known yet":     {unpaid: 402, amount: price, status: 503, why: "503 queue_full", sent: true},
		"refused":           {unpaid: 402, amount: price, status: 402, receipt: receipt(x402.SettlementResponse{ErrorReason: "invalid_nonce"}), why: "402 invalid_nonce", sent: true},
		"without a receipt": {unpaid: 402, amount: price, status: 200, why: "no receipt", sent: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(x402.HeaderSignature) == "" {
					w.Header().Set(x402.HeaderRequired, offer(tc.amount))
					w.WriteHeader(tc.unpaid)
					return
				}
				if p, err := x402.DecodePayload(r.Header.Get(x402.HeaderSignature)); err != nil || p.Authorization != s.auth {
					t.Errorf("the payment is %+v, %v", p, err)
				}
				if tc.receipt != "" {
					w.Header().Set(x402.HeaderResponse, tc.receipt)
				}
				w.WriteHeader(tc.status)
				_, _ = fmt.Fprint(w, `{"code":"queue_full"}`)
			}))
			defer server.Close()
			addr := strings.TrimPrefix(server.URL, "http://")
			p := payer{wire: wire{addr: addr}, host: addr, account: s.auth.From, sign: func() (signed, error) { return s, nil }}
			defer p.wire.close()
			got := p.pair(t.Context(), time.Minute)
			if got.ok() != (tc.why == "") || !strings.HasPrefix(got.why, tc.why) || got.sent.IsZero() == tc.sent {
				t.Errorf("the sale is %+v", got)
			}
			if tc.sent && (got.status != tc.status || got.nonce != s.auth.Nonce || got.payer != s.auth.From) {
				t.Errorf("the sale is %+v", got)
			}
			if tc.why == "" && got.tx != hash(7) {
				t.Errorf("the transaction is %s", got.tx)
			}
		})
	}
}
