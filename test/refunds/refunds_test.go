package refunds

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// refundWallet has nothing at the beginning.
var refundWallet = devnet.Payer(5000)

func refundKey() string { return fmt.Sprintf("0x%x", crypto.FromECDSA(refundWallet.Key)) }

// fast is what the tests say of refunds: as a shop, with seconds for minutes.
func fast(more ...string) string {
	return "refund " + refundKey() + " {\n interval 1s\n min_age 2s\n" + strings.Join(more, "\n") + "\n}"
}

// failing answers by the path: /503/x with 503.
func failing(w http.ResponseWriter, r *http.Request) {
	var status int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/", &status); err != nil {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "said the upstream")
}

const site = `
	x402 /strict/* $0.02 {
		refund_on 5xx 404
	}
	x402 $0.01
	x402_service
	handle_path /strict/* {
		reverse_proxy {upstream}
	}
	handle /gone/* {
		reverse_proxy 127.0.0.1:1
	}
	reverse_proxy {upstream}
`

// status is what a buyer is told of its payment.
type status struct {
	State             string `json:"state"`
	Refund            string `json:"refund"`
	RefundTransaction string `json:"refundTransaction"`
	Transaction       string `json:"transaction"`
	Reason            string `json:"reason"`
}

func statusOf(t *testing.T, r *rig.Rig, b *rig.Buyer, id string) (s status) {
	t.Helper()
	a := b.Get(r.URL("/x402/payments/" + id))
	if err := json.Unmarshal([]byte(a.Body), &s); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	return s
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func mint(t *testing.T, r *rig.Rig, units uint64) {
	t.Helper()
	if err := r.Chain.Mint(t.Context(), refundWallet.Address, uint256.NewInt(units)); err != nil {
		t.Fatal(err)
	}
}

// What the upstream fails to deliver comes back, to the unit and once, and its buyer can see by which transaction; what it delivered
// does not. An empty wallet makes refunds wait, and they are paid by themselves when there is money.
func TestPaidBack(t *testing.T) {
	r := rig.New(t, rig.Options{BlockTime: 400 * time.Millisecond, SafeLag: 2, Site: site, Upstream: failing, App: "interval 200ms", Refund: fast()})
	b := rig.NewBuyer(t, 1)
	had := r.Balance(b.Account.Address).Uint64()
	type bought struct {
		path   string
		price  uint64
		back   bool
		status int
		id     string
	}
	list := []*bought{
		{path: "/503/x", price: 10_000, back: true, status: 503},
		{path: "/gone/x", price: 10_000, back: true, status: 502},
		{path: "/404/x", price: 10_000, status: 404},
		{path: "/200/x", price: 10_000, status: 200},
		{path: "/strict/404/x", price: 20_000, back: true, status: 404},
		{path: "/strict/410/x", price: 20_000, status: 410},
	}
	var back, kept uint64
	for _, p := range list {
		a, _ := b.Buy(r.URL(p.path))
		if p.id = a.Header.Get("X-Payment-Id"); a.Status != p.status || p.id == "" || (a.Header.Get("X-Payment-Status") == "refund_pending") != p.back {
			t.Fatalf("%s: %d %v %s", p.path, a.Status, a.Header, a.Body)
		}
		if kept += p.price; p.back {
			kept, back = kept-p.price, back+p.price
		}
	}
	time.Sleep(4 * time.Second) // there is no money yet
	for _, p := range list {
		if s := statusOf(t, r, b, p.id); (s.State == "REFUND_PENDING") != p.back || s.State == "REFUND_FAILED" || s.RefundTransaction != "" {
			t.Errorf("%s: %+v", p.path, s)
		}
	}
	mint(t, r, back+5)
	for _, p := range list {
		if p.back {
			until(t, p.path+" was not paid back", func() bool { return statusOf(t, r, b, p.id).State == "REFUNDED" })
		}
		s := statusOf(t, r, b, p.id)
		if !p.back && (s.State != "DELIVERED" || s.Refund != "" || s.RefundTransaction != "") ||
			p.back && (s.RefundTransaction == "" || s.RefundTransaction == s.Transaction) {
			t.Errorf("%s: %+v", p.path, s)
		}
	}
	time.Sleep(2 * time.Second) // nothing follows
	if got := r.Balance(b.Account.Address).Uint64(); got != had-kept {
		t.Errorf("the buyer has %d, want %d", got, had-kept)
	}
	if left := r.Balance(refundWallet.Address).Uint64(); left != 5 {
		t.Errorf("the refund wallet has %d left, want 5", left)
	}
	if r.Earned() != kept+back {
		t.Errorf("the seller has %d: refunds are not paid from what was earned", r.Earned())
	}
	// A refund leads to nothing that could be had again.
	if a := b.Get(r.URL("/x402/payments/" + list[0].id)); strings.Contains(a.Body, "token") {
		t.Error(a.Body)
	}
}

// Where a facilitator makes the transfers, it makes those that go back as well.
func TestPaidBackByAFacilitator(t *testing.T) {
	o := rig.Options{BlockTime: 400 * time.Millisecond, SafeLag: 2, Site: site, Upstream: failing, App: "interval 200ms", Refund: fast()}
	chain, err := devnet.Start(t.Context(), devnet.Options{BlockTime: o.BlockTime, SafeLag: o.SafeLag})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	f := facilitator.New(t, chain.URL(), devnet.Developer(3).Key)
	o.RPC, o.Settler = chain.URL(), "facilitator "+f.URL()
	r := rig.New(t, o)
	r.Chain = chain
	mint(t, r, 10_000)
	b := rig.NewBuyer(t, 2)
	had := r.Balance(b.Account.Address).Uint64()
	a, _ := b.Buy(r.URL("/500/x"))
	id := a.Header.Get("X-Payment-Id")
	if a.Status != 500 || id == "" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	until(t, "it was not paid back", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	if got := r.Balance(b.Account.Address).Uint64(); got != had {
		t.Errorf("the buyer has %d, want %d", got, had)
	}
	if n := len(f.Requests("/settle")); n != 2 {
		t.Errorf("%d settlements", n)
	}
}

// The operator is told of a refund that fails, and has it tried again when the cause is gone.
func TestOperatorRetries(t *testing.T) {
	admin := rig.FreeAddr(t)
	o := rig.Options{
		BlockTime: 400 * time.Millisecond, SafeLag: 2, Site: site, Upstream: failing, App: "interval 200ms", Refund: fast("max_payment $0.01"),
	}
	r := startWithAdmin(t, o, admin)
	mint(t, r, 100_000)
	b := rig.NewBuyer(t, 3)
	a, _ := b.Buy(r.URL("/500/x"))
	dear, _ := b.Buy(r.URL("/strict/500/x"))
	id, dearID := a.Header.Get("X-Payment-Id"), dear.Header.Get("X-Payment-Id")
	if err := r.Chain.Blacklist(t.Context(), b.Account.Address); err != nil {
		t.Fatal(err)
	}
	plan := func() (actions map[string]string) {
		var p struct {
			Wallets []struct{ Wallet, Balance, Needed, Problem string }
			Refunds []struct{ Payment, Action, Reason string }
		}
		code, out, errOut := command(t, t.TempDir(), "dry-run", "--address", admin)
		if err := json.Unmarshal([]byte(out), &p); err != nil || code != 0 {
			t.Fatalf("code %d, %v\n%s%s", code, err, out, errOut)
		}
		for _, w := range p.Wallets {
			if !strings.EqualFold(w.Wallet, refundWallet.Address.Hex()) || w.Balance != "100000" || w.Problem != "" {
				t.Errorf("the wallet: %+v", w)
			}
		}
		actions = map[string]string{}
		for _, r := range p.Refunds {
			actions[r.Payment] = r.Action
		}
		return actions
	}
	if got := plan(); got[id] == "" {
		t.Errorf("the plan: %v", got)
	}
	for _, id := range []string{id, dearID} {
		until(t, "no operator was asked for", func() bool { return statusOf(t, r, b, id).State == "REFUND_FAILED" })
	}
	code, out, errOut := command(t, t.TempDir(), "list", "--address", admin, "--json")
	if code != 0 || !strings.Contains(out, "refund_refused_by_token") || !strings.Contains(out, "refund_over_max_payment") {
		t.Fatalf("code %d\n%s%s", code, out, errOut)
	}
	for _, line := range []string{
		`caddy_x402_refunds_total{network="eip155:84532",outcome="failed"} 2`, `caddy_x402_payments{state="REFUND_FAILED"} 2`,
		`caddy_x402_refund_balance_atomic_units{network="eip155:84532"} 100000`,
	} {
		until(t, "the metrics lack "+line, func() bool { return strings.Contains(b.Get("http://"+admin+"/metrics").Body, line) })
	}
	if code, out, errOut = command(t, t.TempDir(), "retry", "--address", admin); code != 2 {
		t.Errorf("nothing was named: code %d\n%s%s", code, out, errOut)
	}
	if err := r.Chain.Unblacklist(t.Context(), b.Account.Address); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut = command(t, t.TempDir(), "retry", id, "--address", admin); code != 0 || !strings.Contains(out, id) {
		t.Fatalf("code %d\n%s%s", code, out, errOut)
	}
	until(t, "it was not paid back", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	if code, out, errOut = command(t, t.TempDir(), "retry", id, "--address", admin); code != 2 || !strings.Contains(out, "refund_not_failed") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
	if statusOf(t, r, b, dearID).State != "REFUND_FAILED" {
		t.Error("what was not named was tried again")
	}
	if left := r.Balance(refundWallet.Address).Uint64(); left != 90_000 {
		t.Errorf("the refund wallet has %d left", left)
	}
	code, out, _ = command(t, t.TempDir(), "list", "--done", "--address", admin, "--json")
	if code != 0 || strings.Count(out, `"state":"REFUNDED"`) != 1 {
		t.Errorf("code %d\n%s", code, out)
	}
}

// A ledger that was restored from a copy of before the refund, under a configuration with another refund wallet, finds on the chain what
// was paid, and pays nothing.
func TestRestoredLedger(t *testing.T) {
	o := rig.Options{BlockTime: 400 * time.Millisecond, SafeLag: 2, Site: site, Upstream: failing, App: "interval 200ms"}
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 4)
	had := r.Balance(b.Account.Address).Uint64()
	a, _ := b.Buy(r.URL("/500/x"))
	id := a.Header.Get("X-Payment-Id")
	file := filepath.Join(r.Dir, "ledger.db")
	stopped := func() []byte {
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	older := stopped()
	o.Refund = fast()
	mint(t, r, 10_000)
	r.Load(o)
	until(t, "it was not paid back", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	paid := statusOf(t, r, b, id).RefundTransaction

	stopped()
	if err := os.WriteFile(file, older, 0o600); err != nil {
		t.Fatal(err)
	}
	other := devnet.Payer(5001)
	if err := r.Chain.Mint(t.Context(), other.Address, uint256.NewInt(10_000)); err != nil {
		t.Fatal(err)
	}
	o.Refund = strings.Replace(fast(), refundKey(), fmt.Sprintf("0x%x", crypto.FromECDSA(other.Key)), 1)
	r.Load(o)
	until(t, "it was not found", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	if got := statusOf(t, r, b, id).RefundTransaction; got != paid || paid == "" {
		t.Errorf("paid back by %s, and then by %s", paid, got)
	}
	if got, left := r.Balance(b.Account.Address).Uint64(), r.Balance(other.Address).Uint64(); got != had || left != 10_000 {
		t.Errorf("the buyer has %d of %d, the other wallet %d", got, had, left)
	}
}

func startWithAdmin(t *testing.T, o rig.Options, admin string) *rig.Rig {
	t.Helper()
	r := rig.New(t, o)
	text := strings.Replace(r.Caddyfile(o), "admin off", "admin "+admin, 1)
	if err := rig.LoadText(text); err != nil {
		t.Fatal(err)
	}
	return r
}

// A refund wallet that is something else as well is refused, in words that say what it is.
func TestWalletOfItsOwn(t *testing.T) {
	r := rig.New(t, rig.Options{})
	gas := fmt.Sprintf("refund 0x%x", rig.GasKey())
	if err := r.TryLoad(rig.Options{Refund: gas}); err == nil || !strings.Contains(err.Error(), "is a gas wallet of eip155:84532 as well") {
		t.Errorf("the gas wallet: %v", err)
	}
	o := rig.Options{Refund: "refund " + refundKey()}
	text := strings.Replace(r.Caddyfile(o), rig.PayTo.Hex(), refundWallet.Address.Hex(), 1)
	err := rig.LoadText(text)
	if err == nil || !strings.Contains(err.Error(), "is the pay_to of eip155:84532 as well") {
		t.Errorf("the seller's wallet: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), common.Bytes2Hex(crypto.FromECDSA(refundWallet.Key))) {
		t.Error("a key is shown")
	}
}
