package refunds

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Wallets that pay refunds have nothing at the beginning.
var (
	refundWallet = devnet.Payer(5000)
	otherWallet  = devnet.Payer(5001)
	thirdWallet  = devnet.Payer(5002)
)

func keyOf(a devnet.Account) string { return fmt.Sprintf("0x%x", crypto.FromECDSA(a.Key)) }

// fast is what the tests say of refunds: as a shop, with seconds for minutes.
func fast(more ...string) string { return fastFrom(refundWallet, more...) }

func fastFrom(wallet devnet.Account, more ...string) string {
	return "refund " + keyOf(wallet) + " {\n interval 1s\n min_age 1s\n" + strings.Join(more, "\n") + "\n}"
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
	x402 /dear/* $0.05
	x402 $0.01
	x402_service
	handle_path /strict/* {
		reverse_proxy {upstream}
	}
	handle_path /dear/* {
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
	return statusAt(t, b, r.URL("/x402/payments/"+id))
}

func statusAt(t *testing.T, b *rig.Buyer, url string, header ...string) (s status) {
	t.Helper()
	a := b.Get(url, header...)
	if err := json.Unmarshal([]byte(a.Body), &s); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%s: %d %s: %v, %v", url, a.Status, a.Body, a.Err, err)
	}
	return s
}

func mint(t *testing.T, chain *devnet.Chain, to common.Address, units uint64) {
	t.Helper()
	if err := chain.Mint(t.Context(), to, uint256.NewInt(units)); err != nil {
		t.Fatal(err)
	}
}

// Refunds on one chain, whose blocks are safe when the next one is there.
func TestRefunds(t *testing.T) {
	chain, err := devnet.Start(t.Context(), devnet.Options{BlockTime: 400 * time.Millisecond, SafeLag: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	o := rig.Options{Chain: chain, Site: site, Upstream: failing, App: "interval 100ms"}
	t.Run("PaidBack", func(t *testing.T) { testPaidBack(t, o) })
	t.Run("PaidBackByAFacilitator", func(t *testing.T) { testPaidBackByAFacilitator(t, o) })
	t.Run("RestoredLedger", func(t *testing.T) { testRestoredLedger(t, o) })
	t.Run("WalletOfItsOwn", func(t *testing.T) { testWalletOfItsOwn(t, o) })
}

// scene is a shop whose operator has Caddy's admin endpoint.
type scene struct {
	*testing.T
	*rig.Rig
	admin string
	buyer *rig.Buyer
}

func (s *scene) status(id string) status {
	s.T.Helper()
	return statusOf(s.T, s.Rig, s.buyer, id)
}

// comes waits until a payment is in a state.
func (s *scene) comes(id, state string) {
	s.T.Helper()
	rig.Until(s.T, "a payment does not become "+state, func() bool { return s.status(id).State == state })
}

// metric waits until the metrics have a line.
func (s *scene) metric(line string) {
	s.T.Helper()
	rig.Until(s.T, "the metrics lack "+line, func() bool { return strings.Contains(s.buyer.Get("http://"+s.admin+"/metrics").Body, line) })
}

// refunds runs a command of the operator's.
func (s *scene) refunds(want int, args ...string) string {
	s.T.Helper()
	ran := command(s.T, s.Dir, append(args, "--address", s.admin)...)
	if ran.Code != want {
		s.T.Fatalf("caddy x402 refunds %s: code %d\n%s%s", strings.Join(args, " "), ran.Code, ran.Out, ran.Err)
	}
	return ran.Out
}

// purchase is something that is paid for, and whether that goes back.
type purchase struct {
	path   string
	price  uint64
	back   bool
	status int
	id     string
}

// buy buys all of it at once.
func (s *scene) buy(list ...*purchase) {
	s.T.Helper()
	got, headers := make([]rig.Answer, len(list)), make([]string, len(list))
	for i, p := range list {
		headers[i] = s.buyer.Sign(s.buyer.Offer(s.URL(p.path)), 0)
	}
	var busy sync.WaitGroup
	for i, p := range list {
		busy.Go(func() { got[i] = s.buyer.Get(s.URL(p.path), x402.HeaderSignature, headers[i]) })
	}
	busy.Wait()
	for i, p := range list {
		a := &got[i]
		p.id = a.Header.Get("X-Payment-Id")
		if a.Status != p.status || p.id == "" || (a.Header.Get("X-Payment-Status") == "refund_pending") != p.back {
			s.T.Fatalf("%s: %d %v %s %v", p.path, a.Status, a.Header, a.Body, a.Err)
		}
	}
}

// What the upstream fails to deliver comes back, to the unit and once, and its buyer can see by which transaction; what it delivered
// does not. An empty wallet makes refunds wait, and they are paid by themselves when there is money. What can't be paid the operator is
// told of, and has tried again when the cause is gone.
func testPaidBack(t *testing.T, o rig.Options) {
	o.Refund, o.Global = fast("max_payment $0.02"), subscription
	s := &scene{T: t, Rig: rig.New(t, o), admin: rig.FreeAddr(t), buyer: rig.NewBuyer(t, 1)}
	if err := rig.LoadText(strings.Replace(s.Caddyfile(o), "admin off", "admin "+s.admin, 1)); err != nil {
		t.Fatal(err)
	}
	had := s.Balance(s.buyer.Account.Address).Uint64()
	list := []*purchase{
		{path: "/503/x", price: 10_000, back: true, status: 503},
		{path: "/gone/x", price: 10_000, back: true, status: 502},
		{path: "/404/x", price: 10_000, status: 404},
		{path: "/200/x", price: 10_000, status: 200},
		{path: "/strict/404/x", price: 20_000, back: true, status: 404},
		{path: "/strict/410/x", price: 20_000, status: 410},
	}
	dear := &purchase{path: "/dear/500/x", price: 50_000, back: true, status: 500}
	s.buy(append(list, dear)...)
	var back, kept uint64
	for _, p := range list {
		if p.back {
			back += p.price
		} else {
			kept += p.price
		}
	}
	banned := s.banned()
	s.metric(`caddy_x402_refund_waits_total{network="eip155:84532",reason="wallet_empty"}`)
	s.comes(dear.id, "REFUND_FAILED")
	for _, p := range list {
		if got := s.status(p.id); (got.State == "REFUND_PENDING") != p.back || got.RefundTransaction != "" {
			t.Errorf("%s: %+v", p.path, got)
		}
	}
	mint(t, s.Chain, refundWallet.Address, back+10_005)
	for _, p := range list {
		s.judge(p)
	}
	s.told("payment_refund_failed", dear.id, map[string]any{"reason": "refund_over_max_payment", "amount": "50000", "refundTransaction": nil})
	s.operator(banned, dear)
	if got := s.Balance(s.buyer.Account.Address).Uint64(); got != had-kept-dear.price {
		t.Errorf("the buyer has %d, want %d", got, had-kept-dear.price)
	}
	if left := s.Balance(refundWallet.Address).Uint64(); left != 5 {
		t.Errorf("the refund wallet has %d left, want 5", left)
	}
	if want := kept + back + dear.price + 10_000; s.Earned() != want {
		t.Errorf("the seller has %d, want %d: refunds are not paid from what was earned", s.Earned(), want)
	}
	// A refund leads to nothing that could be had again.
	if a := s.buyer.Get(s.URL("/x402/payments/" + list[0].id)); strings.Contains(a.Body, "token") {
		t.Error(a.Body)
	}
}

// judge sees that what goes back comes, and what does not does not.
func (s *scene) judge(p *purchase) {
	s.T.Helper()
	if p.back {
		s.comes(p.id, "REFUNDED")
	}
	got := s.status(p.id)
	if !p.back && (got.State != "DELIVERED" || got.Refund != "" || got.RefundTransaction != "") ||
		p.back && (got.RefundTransaction == "" || got.RefundTransaction == got.Transaction) {
		s.T.Errorf("%s: %+v", p.path, got)
	}
	if p.back {
		s.told("payment_refunded", p.id, map[string]any{
			"txHash": got.Transaction, "refundTransaction": got.RefundTransaction, "walletAddress": s.buyer.Account.Address.Hex(), "state": "REFUNDED",
		})
	}
}

// told sees that subscribers hear of a payment once, and what.
func (s *scene) told(name, id string, want map[string]any) {
	s.T.Helper()
	rig.Until(s.T, "no subscriber heard "+name+" of "+id, func() bool { _, n := heardOf(name, id); return n > 0 })
	e, n := heardOf(name, id)
	if n != 1 {
		s.T.Errorf("subscribers heard %s of %s %d times", name, id, n)
	}
	for field, v := range want {
		if e.Data[field] != v {
			s.T.Errorf("%s: %s is %v, want %v", name, field, e.Data[field], v)
		}
	}
}

// banned buys something that fails for a buyer who can't be paid back then.
func (s *scene) banned() (id string) {
	s.T.Helper()
	b := rig.NewBuyer(s.T, 3)
	o := b.Sign(b.Offer(s.URL("/500/x")), 0)
	paid := b.Get(s.URL("/500/x"), x402.HeaderSignature, o)
	if id = paid.Header.Get("X-Payment-Id"); paid.Status != 500 || id == "" {
		s.T.Fatalf("%d %s", paid.Status, paid.Body)
	}
	if err := s.Chain.Blacklist(s.T.Context(), b.Account.Address); err != nil {
		s.T.Fatal(err)
	}
	return id
}

// operator finds out what failed, and has that tried again whose payer may be paid meanwhile.
func (s *scene) operator(id string, dear *purchase) {
	s.T.Helper()
	s.comes(id, "REFUND_FAILED")
	s.told("payment_refund_failed", id, map[string]any{"reason": "refund_refused_by_token"})
	s.metric(`caddy_x402_refunds_total{network="eip155:84532",outcome="failed"} 2`)
	s.metric(`caddy_x402_payments{state="REFUND_FAILED"} 2`)
	s.metric(`caddy_x402_refund_balance_atomic_units{asset="USDC",network="eip155:84532"} 10005`)
	if out := s.refunds(0, "list", "--json"); !strings.Contains(out, "refund_refused_by_token") || !strings.Contains(out, "refund_over_max_payment") {
		s.T.Error(out)
	}
	s.refunds(2, "retry") // what?
	if out := s.refunds(0, "retry", "--all", "--json"); strings.Contains(out, dear.id) || !strings.Contains(out, id) {
		s.T.Error(out)
	}
	s.fails(id, 2)
	if err := s.Chain.Unblacklist(s.T.Context(), devnet.Payer(3).Address); err != nil {
		s.T.Fatal(err)
	}
	if out := s.refunds(0, "retry", id); !strings.Contains(out, id) {
		s.T.Error(out)
	}
	s.planned(id)
	s.comes(id, "REFUNDED")
	s.told("payment_refund_pending", dear.id, nil)
	if _, n := heardOf("payment_refund_pending", id); n != 3 {
		s.T.Errorf("subscribers heard %d times that %s goes back", n, id)
	}
	if out := s.refunds(2, "retry", id); !strings.Contains(out, "refund_not_failed") {
		s.T.Error(out)
	}
	if s.status(dear.id).State != "REFUND_FAILED" {
		s.T.Error("what was not named was tried again")
	}
	if out := s.refunds(0, "list", "--done", "--json"); strings.Count(out, `"state":"REFUNDED"`) != 4 {
		s.T.Error(out)
	}
}

// fails waits until a refund has failed so many times.
func (s *scene) fails(id string, times int) {
	s.T.Helper()
	rig.Until(s.T, "a refund does not fail again", func() bool {
		_, n := heardOf("payment_refund_failed", id)
		return n == times && s.status(id).State == "REFUND_FAILED"
	})
}

// planned sees what is said of a refund that was tried again just now: it is to be paid, or on its way already.
func (s *scene) planned(id string) {
	s.T.Helper()
	var plan struct {
		Wallets []struct{ Wallet, Balance, Needed, Problem string }
		Refunds []struct{ Payment, Action, Reason string }
	}
	if err := json.Unmarshal([]byte(s.refunds(0, "dry-run", "--json")), &plan); err != nil {
		s.T.Fatal(err)
	}
	if s.status(id).State == "REFUNDED" {
		return // it was faster
	}
	if len(plan.Refunds) != 1 || len(plan.Wallets) != 1 || plan.Refunds[0].Payment != id || plan.Refunds[0].Action == "wait" || plan.Refunds[0].Action == "fail" ||
		!strings.EqualFold(plan.Wallets[0].Wallet, refundWallet.Address.Hex()) || plan.Wallets[0].Problem != "" {
		s.T.Errorf("the plan: %+v", plan)
	}
}

// Where a facilitator makes the transfers, it makes those that go back as well.
func testPaidBackByAFacilitator(t *testing.T, o rig.Options) {
	f := facilitator.New(t, o.Chain.URL(), devnet.Developer(3).Key)
	o.Settler, o.Refund = "facilitator "+f.URL(), fastFrom(otherWallet)
	r := rig.New(t, o)
	mint(t, o.Chain, otherWallet.Address, 10_000)
	b := rig.NewBuyer(t, 2)
	had := r.Balance(b.Account.Address).Uint64()
	a, _ := b.Buy(r.URL("/500/x"))
	id := a.Header.Get("X-Payment-Id")
	if a.Status != 500 || id == "" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	rig.Until(t, "it was not paid back", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	if got := r.Balance(b.Account.Address).Uint64(); got != had {
		t.Errorf("the buyer has %d, want %d", got, had)
	}
	if n := len(f.Requests("/settle")); n != 2 {
		t.Errorf("%d settlements", n)
	}
}

// A ledger that was restored from a copy of before the refund, under a configuration with another refund wallet, finds on the chain what
// was paid, and pays nothing.
func testRestoredLedger(t *testing.T, o rig.Options) {
	o.Settler = "wallet " + keyOf(devnet.Developer(4)) // each ledger has its own
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
	o.Refund = fastFrom(otherWallet)
	mint(t, r.Chain, otherWallet.Address, 10_000)
	r.Load(o)
	rig.Until(t, "it was not paid back", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	paid := statusOf(t, r, b, id).RefundTransaction

	stopped()
	if err := os.WriteFile(file, older, 0o600); err != nil {
		t.Fatal(err)
	}
	mint(t, r.Chain, thirdWallet.Address, 10_000)
	o.Refund = fastFrom(thirdWallet)
	r.Load(o)
	rig.Until(t, "it was not found", func() bool { return statusOf(t, r, b, id).State == "REFUNDED" })
	if got := statusOf(t, r, b, id).RefundTransaction; got != paid || paid == "" {
		t.Errorf("paid back by %s, and then by %s", paid, got)
	}
	if got, left := r.Balance(b.Account.Address).Uint64(), r.Balance(thirdWallet.Address).Uint64(); got != had || left != 10_000 {
		t.Errorf("the buyer has %d of %d, the other wallet %d", got, had, left)
	}
}

// A refund wallet that is something else as well is refused, in words that say what it is.
func testWalletOfItsOwn(t *testing.T, o rig.Options) {
	gas := keyOf(devnet.Developer(5))
	o.Settler = "wallet " + gas
	r := rig.New(t, o)
	o.Refund = "refund " + gas
	if err := r.TryLoad(o); err == nil || !strings.Contains(err.Error(), "is a gas wallet of eip155:84532 as well") {
		t.Errorf("the gas wallet: %v", err)
	}
	o.Refund = "refund " + keyOf(refundWallet)
	text := strings.Replace(r.Caddyfile(o), rig.PayTo.Hex(), refundWallet.Address.Hex(), 1)
	err := rig.LoadText(text)
	if err == nil || !strings.Contains(err.Error(), "is the pay_to of eip155:84532 as well") {
		t.Errorf("the seller's wallet: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), common.Bytes2Hex(crypto.FromECDSA(refundWallet.Key))) {
		t.Error("a key is shown")
	}
}
