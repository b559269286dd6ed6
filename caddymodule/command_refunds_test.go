package caddymodule

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A terminal of 80 columns has room for why a refund failed, and a wider one for what it comes to.
func TestRefundTable(t *testing.T) {
	p := ledger.Payment{
		ID: "pay_abcdefghijklmnopqrstuvwxyz22", Amount: *uint256.NewInt(10_000), Settlement: ledger.Settled, Delivery: ledger.Undelivered,
		Refund: ledger.RefundFailed, Reason: "refund_refused_by_token", Binding: ledger.Binding{Method: "GET", URI: "/x"}, SettledAt: time.Unix(1, 0),
	}
	n := x402.Networks()[0]
	p.ChainID, p.Asset, p.Payer = n.ChainID, n.Asset.Address, common.Address{1}
	for width, want := range map[int]string{
		80:  "PAYMENT STATE REASON pay_abcdefghijklmnopqrstuvwxyz22 REFUND_FAILED refund_refused_by_token",
		100: "PAYMENT STATE REASON AMOUNT pay_abcdefghijklmnopqrstuvwxyz22 REFUND_FAILED refund_refused_by_token 0.01 USDC",
	} {
		var out, said bytes.Buffer
		pages := newTablePages(&operator{out: &out, err: &said, width: width}, refundColumns, "none")
		if err := pages.page([]operatorPayment{newOperatorPayment(&p, nil)}); err != nil {
			t.Fatal(err)
		}
		if err := pages.end(""); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want || said.Len() > 0 {
			t.Errorf("%d columns: %q, and said %q", width, got, said.String())
		}
	}
}

// A plan tells from which wallet is paid even if nothing is to be paid, so that somebody can put money there.
func TestShowPlan(t *testing.T) {
	wallet := common.Address{7}
	plan := &paywall.RefundPlan{Wallets: []paywall.RefundWallet{
		{Network: "eip155:8453", Wallet: &wallet, Balance: "5", BalanceDecimal: "0.000005", Needed: "10000", NeededDecimal: "0.01", Symbol: "USDC", Problem: "it has less than is needed"},
		{Network: "eip155:1", Needed: "7", Problem: "refunds are not paid from here"},
	}}
	show := func() (printed, said string) {
		var out, err bytes.Buffer
		if err := showPlan(&operator{out: &out, err: &err}, plan); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out.String()), " "), err.String()
	}
	wallets := "REFUND WALLET HAS NEEDS NETWORK PROBLEM " + wallet.Hex() + " 0.000005 USDC 0.01 USDC eip155:8453 it has less than is needed " +
		"7 units eip155:1 refunds are not paid from here"
	if printed, said := show(); printed != wallets || said != "No refund is pending.\n" {
		t.Errorf("%q, and said %q", printed, said)
	}
	plan.Refunds = []paywall.PlannedRefund{
		{Payment: "pay_a", Payer: common.Address{1}, Network: "eip155:8453", Amount: "10000", AmountDecimal: "0.01", Symbol: "USDC", Action: "wait", Reason: "too_young", Since: time.Unix(1, 0)},
	}
	want := "PAYMENT ACTION AMOUNT REASON TO PAID NETWORK pay_a wait 0.01 USDC too_young 0x0100…000000 1970-01-01T00:00:01Z eip155:8453 " + wallets
	if printed, said := show(); printed != want || said != "" {
		t.Errorf("%q, and said %q", printed, said)
	}
}
