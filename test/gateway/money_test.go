package gateway

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// However often, in whatever order and however many at once the same orders are sent: each moves its money once, and all who sent it
// are told of the same transaction.
func TestManyAtOnce(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open})
	buyers := []*rig.Buyer{rig.NewBuyer(t, 1), rig.NewBuyer(t, 2), rig.NewBuyer(t, 3)}
	begun, settled := time.Now(), uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		if time.Since(begun) > 15*time.Second {
			return
		}
		var orders []string
		for range rapid.IntRange(1, 8).Draw(rt, "orders") {
			b := rapid.SampledFrom(buyers).Draw(rt, "payer")
			if rapid.Bool().Draw(rt, "version 1") {
				orders = append(orders, orderV1(t, b, requirements()))
			} else {
				orders = append(orders, order(t, b, requirements()))
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		hashes := map[int]map[string]int{}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(orders)-1), 1, 24).Draw(rt, "sent") {
			if hashes[i] == nil {
				hashes[i] = map[string]int{}
			}
			wg.Go(func() {
				a := ask(t, r, buyers[0], "settle", orders[i])
				mu.Lock()
				defer mu.Unlock()
				hashes[i][a.Body]++
			})
		}
		wg.Wait()
		for i, answers := range hashes {
			if len(answers) != 1 {
				rt.Errorf("order %d was answered %v", i, answers)
			}
			for answer := range answers {
				if s := read(t, rig.Answer{Body: answer}); s.Success == nil || !*s.Success || s.Transaction == "" {
					rt.Errorf("order %d: %s", i, answer)
				}
			}
		}
		if settled += uint64(len(hashes)); earned(r) != settled*cent {
			rt.Fatalf("%d orders, and the shop has %d", settled, earned(r))
		}
	})
	list := payments(t, r.Dir+"/ledger.db")
	if uint64(len(list)) != settled {
		t.Errorf("%d payments in the ledger for %d orders", len(list), settled)
	}
	for _, p := range list {
		if p.State() != ledger.StateSettled {
			t.Errorf("%s is %s", p.ID, p.State())
		}
	}
	t.Logf("%d orders", settled)
}

// Where a success is told once, one of many copies gets it; the others are told that, and by which transaction.
func TestOnce(t *testing.T) {
	site := `
	x402_facilitator /facilitator/* {
		keys off
		allow_pay_to ` + shop.Hex() + `
	}
`
	r := rig.New(t, rig.Options{Site: site, App: quick})
	b := rig.NewBuyer(t, 1)
	body := order(t, b, requirements())
	var wg sync.WaitGroup
	answers := make(chan verdict, 16)
	for range cap(answers) {
		wg.Go(func() { answers <- read(t, ask(t, r, b, "settle", body)) })
	}
	wg.Wait()
	close(answers)
	told, hashes := 0, map[string]bool{}
	for v := range answers {
		hashes[v.Transaction] = true
		switch {
		case v.Success != nil && *v.Success:
			told++
		case v.ErrorReason != string(x402.ReasonDuplicateSettlement):
			t.Errorf("answered %+v", v)
		}
	}
	if told != 1 || len(hashes) != 1 || earned(r) != cent {
		t.Errorf("%d were told of %v, and the shop has %d", told, hashes, earned(r))
	}
	r.Load(rig.Options{Site: site, App: quick + "\n max_timeout 90s"}) // it is in the ledger, not in mind
	b.HTTP.CloseIdleConnections()
	if v := read(t, ask(t, r, b, "settle", body)); v.Success == nil || *v.Success || !hashes[v.Transaction] {
		t.Errorf("after a reload: %+v", v)
	}
	// Who left before the answer has been told nothing.
	r.Chain.Stall()
	body = order(t, b, requirements())
	ctx, leave := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer leave()
	b.Do(ctx, http.MethodPost, r.URL("/facilitator/settle"), body)
	r.Chain.Resume()
	if v := insist(t, r, b, body); v.Success == nil || !*v.Success {
		t.Errorf("who asks again: %+v", v)
	}
}

// insist asks for a settlement as long as nobody knows what became of it.
func insist(t *testing.T, r *rig.Rig, b *rig.Buyer, body string) verdict {
	t.Helper()
	var v verdict
	waitFor(t, func() bool {
		v = read(t, answered(t, r, b, body))
		return v.ErrorReason != string(x402.ReasonSettlementPending)
	})
	return v
}

// answered asks for a settlement until it is at least on its way: on a busy machine that takes longer than one request waits.
func answered(t *testing.T, r *rig.Rig, b *rig.Buyer, body string) (a rig.Answer) {
	t.Helper()
	waitFor(t, func() bool {
		a = ask(t, r, b, "settle", body)
		return a.Status == http.StatusOK
	})
	return a
}

// While a transaction is on its way, its fate is pending, and its hash is told. The same again gets what became of it, whether or
// not anybody asked meanwhile.
func TestPending(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprintf("asked again %v", asked), func(t *testing.T) {
			r := rig.New(t, rig.Options{Site: open, App: "settle_timeout 1s\n interval 200ms\n hold_ttl 2s"})
			b := rig.NewBuyer(t, 1)
			body := order(t, b, requirements())
			r.Chain.Stall()
			first := answered(t, r, b, body)
			v := read(t, first)
			if v.Success == nil || *v.Success || v.ErrorReason != string(x402.ReasonSettlementPending) || len(v.Transaction) != 66 {
				t.Fatalf("answered %s", first.Body)
			}
			if asked {
				if again := ask(t, r, b, "settle", body); again.Body != first.Body {
					t.Errorf("the same again: %s", again.Body)
				}
			}
			r.Chain.Resume()
			if asked {
				s := insist(t, r, b, body)
				if s.Success == nil || !*s.Success || s.Transaction != v.Transaction {
					t.Errorf("it became %+v, and was %+v", s, v)
				}
			}
			waitFor(t, func() bool {
				list := payments(t, r.Dir+"/ledger.db")
				return len(list) == 1 && list[0].State() == ledger.StateSettled && list[0].Transaction.Hex() == v.Transaction
			})
			if earned(r) != cent {
				t.Errorf("the shop has %d", earned(r))
			}
		})
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// An authorization pays once, for one thing: one that is used at a paywall of ours settles nobody's order, one that was settled for
// another server opens no paywall, and one order is not another.
func TestOneAuthorizationOneThing(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402_facilitator /facilitator/* {
		keys off
		allow_pay_to ` + rig.PayTo.Hex() + `
		repeat
	}
	x402 $0.01
	x402_service
	reverse_proxy {upstream}
`})
	b := rig.NewBuyer(t, 1)
	offer := b.Offer(r.URL("/tea"))
	sent := func(header string) string {
		raw, err := base64.StdEncoding.DecodeString(header)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"x402Version":2,"paymentPayload":%s,"paymentRequirements":%s}`, raw, offer.Accepts[0].Raw)
	}
	header := b.Sign(offer, 0)
	if a := b.Get(r.URL("/tea"), x402.HeaderSignature, header); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	for endpoint, v := range map[string]verdict{
		"verify": read(t, ask(t, r, b, "verify", sent(header))), "settle": read(t, ask(t, r, b, "settle", sent(header))),
	} {
		if v.InvalidReason+v.ErrorReason != string(x402.ReasonNonceUsed) || v.Transaction != "" {
			t.Errorf("%s of what the paywall was paid with: %+v", endpoint, v)
		}
	}
	header = b.Sign(offer, 0)
	if v := read(t, ask(t, r, b, "settle", sent(header))); v.Success == nil || !*v.Success {
		t.Fatalf("settled as %+v", v)
	}
	for range 2 {
		if a := b.Get(r.URL("/tea"), x402.HeaderSignature, header); a.Status != http.StatusPaymentRequired {
			t.Errorf("the paywall takes what was settled: %d %s", a.Status, a.Body)
		}
	}
	if a := b.Get(r.URL("/tea"), x402.HeaderSignature, b.Sign(offer, 0)); a.Status != http.StatusOK {
		t.Errorf("a new payment: %d %s", a.Status, a.Body)
	}
	other := replace("/tea", "/coffee")(sent(header))
	if other == sent(header) { // the resource is part of what was encoded
		t.Fatal("it is the same order")
	}
	if v := read(t, ask(t, r, b, "settle", other)); v.Success == nil || *v.Success || v.ErrorReason != string(x402.ReasonNonceUsed) {
		t.Errorf("another order by the same authorization: %+v", v)
	}
	if n := r.Upstream.Calls(); n != 2 || r.Earned() != 3*cent {
		t.Errorf("the upstream was asked %d times, and the seller has %d", n, r.Earned())
	}
}

// Contract wallets pay by what their code says (EIP-1271), and one that changes its mind has others pay nothing for it but gas.
func TestContractWallets(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open, App: quick})
	b := rig.NewBuyer(t, 1)
	ctx := t.Context()
	wallet, err := r.Chain.DeployWallet(ctx, b.Account.Address)
	if err != nil {
		t.Fatal(err)
	}
	fickle, err := r.Chain.DeployHostileWallet(ctx, devnet.AcceptInSimulation, 0)
	if err != nil {
		t.Fatal(err)
	}
	refuses, err := r.Chain.DeployHostileWallet(ctx, devnet.Refuse, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		wallet         common.Address
		valid, settled bool
		reason         x402.Reason
	}{
		{wallet, true, true, ""},
		{refuses, false, false, x402.ReasonSignature},
		{fickle, true, false, ""},
	} {
		if err := r.Chain.Mint(ctx, tt.wallet, uint256.NewInt(cent)); err != nil {
			t.Fatal(err)
		}
		before := earned(r)
		body := order(t, b, requirements(), func(a *x402.Authorization) { a.From = tt.wallet })
		v := read(t, ask(t, r, b, "verify", body))
		if v.IsValid == nil || *v.IsValid != tt.valid || v.InvalidReason != string(tt.reason) || v.Payer != tt.wallet.Hex() {
			t.Errorf("%s is verified as %+v", tt.wallet, v)
		}
		s := insist(t, r, b, body)
		if s.Success == nil || *s.Success != tt.settled || tt.settled != (s.ErrorReason == "") || earned(r)-before != map[bool]uint64{true: cent}[tt.settled] {
			t.Errorf("%s is settled as %+v", tt.wallet, s)
		}
	}
	// Who has cost us gas for nothing does not do so again at once.
	gas, err := r.Chain.Balance(ctx, devnet.Developer(0).Address)
	if err != nil {
		t.Fatal(err)
	}
	body := order(t, b, requirements(), func(a *x402.Authorization) { a.From = fickle })
	if v := read(t, ask(t, r, b, "verify", body)); v.IsValid == nil || *v.IsValid {
		t.Errorf("the next one is verified as %+v", v)
	}
	if s := read(t, ask(t, r, b, "settle", body)); s.Success == nil || *s.Success || s.ErrorReason != string(x402.ReasonTransactionFailed) || s.Transaction != "" {
		t.Errorf("the next one is settled as %+v", s)
	}
	if left, err := r.Chain.Balance(ctx, devnet.Developer(0).Address); err != nil || !left.Eq(gas) {
		t.Errorf("the wallet had %s, and has %s: %v", gas, left, err)
	}
}

// Two orders over all that a payer has: one is settled, and the other one is told why it is not.
func TestOverdraft(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open, App: quick})
	b := rig.NewBuyer(t, 1)
	all := r.Balance(b.Account.Address).Dec()
	half := requirements(func(q *x402.Requirements) { q.Amount = all })
	orders := []string{order(t, b, half), order(t, b, half)}
	for _, body := range orders {
		if v := read(t, ask(t, r, b, "verify", body)); v.IsValid == nil || !*v.IsValid {
			t.Fatalf("verified as %+v", v)
		}
	}
	r.Chain.Stall()
	var wg sync.WaitGroup
	for _, body := range orders {
		wg.Go(func() { ask(t, r, b, "settle", body) })
	}
	time.Sleep(500 * time.Millisecond)
	r.Chain.Resume()
	wg.Wait()
	settled, failed := 0, ""
	for _, body := range orders {
		v := insist(t, r, b, body)
		if v.Success != nil && !*v.Success {
			failed = body
		}
		switch {
		case v.Success != nil && *v.Success:
			settled++
		case v.ErrorReason != string(x402.ReasonInsufficientBalance):
			t.Errorf("the other one: %+v", v)
		}
	}
	if settled != 1 || r.Balance(shop).Dec() != all {
		t.Fatalf("%d were settled, and the shop has %s of %s", settled, r.Balance(shop), all)
	}
	// The payer gets money again, and a stranger executes what had failed: that is noticed, and told.
	if err := r.Chain.Mint(t.Context(), b.Account.Address, uint256.MustFromDecimal(all)); err != nil {
		t.Fatal(err)
	}
	// It could be executed now, but is not settled any more: nobody is to serve it for that.
	if v := read(t, ask(t, r, b, "verify", failed)); v.IsValid == nil || *v.IsValid || v.InvalidReason != string(x402.ReasonInsufficientBalance) {
		t.Errorf("what failed is verified as %+v", v)
	}
	hash := execute(t, r, failed)
	waitFor(t, func() bool {
		v := read(t, ask(t, r, b, "settle", failed))
		return v.Success != nil && *v.Success && v.Transaction == hash.Hex()
	})
	for _, p := range payments(t, r.Dir+"/ledger.db") {
		if p.State() != ledger.StateSettled {
			t.Errorf("%s is %s", p.ID, p.State())
		}
	}
}

// execute has a stranger send the transfer of an order.
func execute(t *testing.T, r *rig.Rig, body string) common.Hash {
	t.Helper()
	o, _, _, err := x402.ParseOrder([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	client, err := ethclient.DialContext(t.Context(), r.Chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	chainID, stranger := big.NewInt(devnet.ChainID), devnet.Developer(7)
	tx, err := types.SignNewTx(stranger.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, To: &devnet.TokenAddress, Data: o.Payload.Authorization.TransferCalldata(o.Payload.Signature), Gas: 300_000,
		GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(100e9),
	})
	if err == nil {
		err = client.SendTransaction(t.Context(), tx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tx.Hash()
}
