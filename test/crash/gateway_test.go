package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// shop is another seller, for whom x402_facilitator settles.
var shop = common.HexToAddress("0x5b38da6a701c568545dcfcb03fcb875f56beddc4")

func gateway(payTo common.Address) string {
	return "x402_facilitator /facilitator/* {\nkeys off\nallow_pay_to " + payTo.Hex() + "\nrepeat\n}"
}

// A facilitator that is killed anywhere between two steps of a settlement: who asks for the same again is told that it is settled,
// once; and where nobody asks, what was recorded is settled all the same, and what was not has cost nothing.
func TestGatewayKilled(t *testing.T) {
	for step, sent := range map[string]bool{"claimed": false, "signed": false, "recorded": true, "broadcast": true, "settled": true} {
		for _, asks := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/asks again %v", step, asks), func(t *testing.T) {
				t.Parallel()
				killGateway(t, step, asks, asks || sent)
			})
		}
	}
}

func killGateway(t *testing.T, step string, asks, settled bool) {
	s := newScene(t, newChain(t), http.MethodPost, "/facilitator/settle")
	o := rig.Options{Site: gateway(shop), App: "settle_timeout 20s\n hold_ttl 2s\n interval 200ms"}
	requirements := x402.NewRequirements(devnet.Network(), shop, uint256.NewInt(cent), time.Minute, "", "")
	a, sig := s.buyer.Authorize(requirements)
	offer := x402.PaymentRequired{X402Version: 2, Accepts: []x402.Requirements{requirements}}
	body, err := json.Marshal(map[string]any{
		"x402Version": 2, "paymentPayload": offer.Pay(requirements, &a, sig), "paymentRequirements": requirements,
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() rig.Answer { return s.buyer.Do(t.Context(), s.method, s.url, string(body)) }

	doomed := s.start(o, step)
	if first := ask(); first.Err == nil {
		t.Fatalf("the process survived: %d %s", first.Status, first.Body)
	}
	<-doomed.Ended()
	alive := s.start(o, "")
	var said x402.SettlementResponse
	deadline := time.Now().Add(rig.Patience)
	for ; asks && !said.Success && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		answer := ask()
		if answer.Status != http.StatusOK && answer.Status != http.StatusServiceUnavailable {
			t.Fatalf("%d %v %s", answer.Status, answer.Err, answer.Body)
		}
		if err := json.Unmarshal([]byte(answer.Body), &said); err != nil {
			t.Fatal(err)
		}
		if answer.Status == http.StatusOK && !said.Success && said.ErrorReason != x402.ReasonSettlementPending {
			t.Fatalf("it is said that it failed: %s", answer.Body)
		}
	}
	want := map[bool]ledger.State{true: ledger.StateSettled, false: ledger.StateSettling}[settled]
	deadline = time.Now().Add(rig.Patience)
	list := s.payments()
	for len(list) == 1 && list[0].State() != want && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
		list = s.payments()
	}
	alive.Kill()
	if len(list) != 1 || list[0].State() != want || asks && list[0].Transaction.Hex() != said.Transaction {
		t.Fatalf("the ledger has %+v, the answer was %+v", list, said)
	}
	paid, err := s.chain.TokenBalance(context.WithoutCancel(t.Context()), shop)
	if err != nil {
		t.Fatal(err)
	}
	if (paid.Uint64() == cent) != settled || paid.Uint64() > cent {
		t.Errorf("the shop has %s", paid)
	}
	if settled && !s.onChain(list[0].Transaction) {
		t.Errorf("the transaction %s is not on chain", list[0].Transaction)
	}
}

// One Caddy settles through another one, which has the wallet. Whatever that one dies of, each payment is made once and served.
func TestOneCaddyThroughAnother(t *testing.T) {
	for _, how := range []string{"verify", "trust_facilitator"} {
		for _, step := range []string{"", "claimed", "recorded", "broadcast", "settled"} {
			t.Run(how+"/killed after "+step, func(t *testing.T) { throughAnother(t, how, step) })
		}
	}
}

func throughAnother(t *testing.T, how, step string) {
	chain := newChain(t)
	bank := newScene(t, chain, http.MethodPost, "/facilitator")
	o := rig.Options{Site: gateway(rig.PayTo), App: "settle_timeout 20s\n hold_ttl 2s\n interval 200ms"}
	doomed := bank.start(o, step)

	s := newScene(t, chain, http.MethodGet, "/thing")
	s.start(rig.Options{
		Settler: "facilitator " + bank.url + " {\n" + how + "\n}", App: "settle_timeout 10s\n hold_ttl 2s\n min_age 60s\n interval 200ms",
	}, "")
	s.offer = s.buyer.Offer(s.url)
	s.header = s.buyer.Sign(s.offer, 0)
	first := make(chan rig.Answer, 1)
	go func() { first <- s.send(s.header) }()
	if step != "" {
		<-doomed.Ended()
		bank.start(o, "")
	}
	answer := <-first
	if answer.Status == http.StatusServiceUnavailable {
		answer = s.insist(clients["sends the same again"])
	}
	paid, err := chain.TokenBalance(context.WithoutCancel(t.Context()), rig.PayTo)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusOK || s.upstream.Calls() != 1 || paid.Uint64() != cent {
		t.Errorf("%d %s; the upstream was asked %d times, and %s was paid", answer.Status, answer.Body, s.upstream.Calls(), paid)
	}
	list := bank.payments()
	if len(list) != 1 || !list[0].Facilitated() || list[0].PayTo != rig.PayTo {
		t.Errorf("the other one's ledger has %+v", list)
	}
}
