package proof

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

func someIntent() settlement.Intent {
	in := settlement.Intent{ClaimBlock: 100}
	in.Network.Asset.Address = common.HexToAddress("0x70ce")
	in.Authorization.From, in.Authorization.To = common.HexToAddress("0xf0"), common.HexToAddress("0x70")
	in.Authorization.Value.SetUint64(1000)
	in.Authorization.Nonce = common.Hash{7}
	return in
}

// receiptOf is that of a transaction which pays in, and does nothing else.
func receiptOf(in settlement.Intent) *chain.Receipt {
	a, token, value := in.Authorization, in.Network.Asset.Address, in.Authorization.Value.Bytes32()
	return &chain.Receipt{OK: true, Block: 101, Logs: []types.Log{
		{Address: token, Index: 7, Topics: []common.Hash{x402.TopicAuthorizationUsed, topic(a.From), a.Nonce}},
		{Address: token, Index: 8, Topics: []common.Hash{x402.TopicTransfer, topic(a.From), topic(a.To)}, Data: value[:]},
	}}
}

// Anything that differs from the adjacent pair of the right logs is no payment.
func TestPaid(t *testing.T) {
	in := someIntent()
	if !Paid(in, receiptOf(in)) {
		t.Fatal("a payment is none")
	}
	if Paid(in, nil) {
		t.Error("no receipt is a payment")
	}
	for name, change := range map[string]func(r *chain.Receipt){
		"reverted":           func(r *chain.Receipt) { r.OK = false },
		"block of the claim": func(r *chain.Receipt) { r.Block = 100 },
		"other token, used":  func(r *chain.Receipt) { r.Logs[0].Address[0]++ },
		"other token, moved": func(r *chain.Receipt) { r.Logs[1].Address[0]++ },
		"other payer, used":  func(r *chain.Receipt) { r.Logs[0].Topics[1][31]++ },
		"other payer, moved": func(r *chain.Receipt) { r.Logs[1].Topics[1][31]++ },
		"other nonce":        func(r *chain.Receipt) { r.Logs[0].Topics[2][0]++ },
		"other payee":        func(r *chain.Receipt) { r.Logs[1].Topics[2][31]++ },
		"less":               func(r *chain.Receipt) { r.Logs[1].Data[31]-- },
		"more":               func(r *chain.Receipt) { r.Logs[1].Data[0]++ },
		"shorter data":       func(r *chain.Receipt) { r.Logs[1].Data = r.Logs[1].Data[1:] },
		"cancelled":          func(r *chain.Receipt) { r.Logs[0].Topics[0] = x402.TopicAuthorizationCanceled },
		"an approval":        func(r *chain.Receipt) { r.Logs[1].Topics[0][0]++ },
		"only the use":       func(r *chain.Receipt) { r.Logs = r.Logs[:1] },
		"only the transfer":  func(r *chain.Receipt) { r.Logs = r.Logs[1:] },
		"no topics":          func(r *chain.Receipt) { r.Logs[0].Topics = nil },
		"in another order":   func(r *chain.Receipt) { r.Logs[0], r.Logs[1] = r.Logs[1], r.Logs[0] },
		"not adjacent":       func(r *chain.Receipt) { r.Logs[1].Index++ },
		"something between": func(r *chain.Receipt) {
			r.Logs = []types.Log{r.Logs[0], {Index: 8}, r.Logs[1]}
			r.Logs[2].Index = 9
		},
		"taken back, used":  func(r *chain.Receipt) { r.Logs[0].Removed = true },
		"taken back, moved": func(r *chain.Receipt) { r.Logs[1].Removed = true },
	} {
		r := receiptOf(in)
		change(r)
		if Paid(in, r) {
			t.Errorf("%s: it is a payment", name)
		}
	}
}

// In a batch each payment is judged by its own pair: those that are in are paid, those that are not are not.
func TestPaidInBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "payments")
		r := &chain.Receipt{OK: true, Block: 101}
		intents, in := make([]settlement.Intent, n), make([]bool, n)
		for i := range intents {
			intents[i] = someIntent()
			intents[i].Authorization.Nonce = common.Hash{byte(i + 1)}
			if in[i] = rapid.Bool().Draw(t, "in"); !in[i] {
				continue
			}
			for _, l := range receiptOf(intents[i]).Logs {
				l.Index = uint(len(r.Logs))
				r.Logs = append(r.Logs, l)
			}
		}
		for i := range intents {
			if Paid(intents[i], r) != in[i] {
				t.Fatalf("payment %d: %v", i, !in[i])
			}
		}
	})
}

// An authorization ends at its validBefore, which may lie beyond all clocks.
func TestExpired(t *testing.T) {
	in := someIntent()
	in.Authorization.ValidBefore.SetUint64(1000)
	for now, want := range map[uint64]bool{999: false, 1000: true, 1001: true} {
		if Expired(in, chain.Head{Time: now}) != want {
			t.Errorf("at %d: %v", now, !want)
		}
	}
	in.Authorization.ValidBefore.SetAllOne()
	if Expired(in, chain.Head{Time: ^uint64(0)}) {
		t.Error("an end beyond all clocks is over")
	}
}
