package wallet

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

func testIntent() settlement.Intent {
	in := settlement.Intent{ClaimBlock: 100}
	in.Network.Asset.Address = common.HexToAddress("0x70ce")
	in.Authorization.From, in.Authorization.To = common.HexToAddress("0xf0"), common.HexToAddress("0x70")
	in.Authorization.Value.SetUint64(1000)
	in.Authorization.Nonce = common.Hash{7}
	return in
}

// pair is what the token logs for a payment.
func pair(in settlement.Intent) []types.Log {
	a, value := in.Authorization, in.Authorization.Value.Bytes32()
	return []types.Log{
		{Address: in.Network.Asset.Address, Topics: []common.Hash{x402.TopicAuthorizationUsed, topic(a.From), a.Nonce}},
		{
			Address: in.Network.Asset.Address, Topics: []common.Hash{x402.TopicTransfer, topic(a.From), topic(a.To)},
			Data: value[:],
		},
	}
}

func receipt(logs []types.Log) *chain.Receipt {
	for i := range logs {
		logs[i].Index = uint(10 + i)
	}
	return &chain.Receipt{OK: true, Block: 101, Logs: logs}
}

// Anything that differs from the adjacent pair of the right logs is no payment.
func TestPaid(t *testing.T) {
	in := testIntent()
	cases := map[string]func(r *chain.Receipt){
		"reverted":            func(r *chain.Receipt) { r.OK = false },
		"block of the claim":  func(r *chain.Receipt) { r.Block = 100 },
		"other token, used":   func(r *chain.Receipt) { r.Logs[0].Address[0]++ },
		"other token, moved":  func(r *chain.Receipt) { r.Logs[1].Address[0]++ },
		"other payer, used":   func(r *chain.Receipt) { r.Logs[0].Topics[1][31]++ },
		"other payer, moved":  func(r *chain.Receipt) { r.Logs[1].Topics[1][31]++ },
		"other nonce":         func(r *chain.Receipt) { r.Logs[0].Topics[2][0]++ },
		"other payee":         func(r *chain.Receipt) { r.Logs[1].Topics[2][31]++ },
		"less":                func(r *chain.Receipt) { r.Logs[1].Data[31]-- },
		"more":                func(r *chain.Receipt) { r.Logs[1].Data[0]++ },
		"cancelled":           func(r *chain.Receipt) { r.Logs[0].Topics[0] = x402.TopicAuthorizationCanceled },
		"an approval":         func(r *chain.Receipt) { r.Logs[1].Topics[0][0]++ },
		"only the use":        func(r *chain.Receipt) { r.Logs = r.Logs[:1] },
		"only the transfer":   func(r *chain.Receipt) { r.Logs = r.Logs[1:] },
		"the wrong way round": func(r *chain.Receipt) { *r = *receipt([]types.Log{r.Logs[1], r.Logs[0]}) },
		"a gap":               func(r *chain.Receipt) { r.Logs[1].Index++ },
		"taken back":          func(r *chain.Receipt) { r.Logs[1].Removed = true },
		"too few topics":      func(r *chain.Receipt) { r.Logs[1].Topics = r.Logs[1].Topics[:2] },
		"no logs":             func(r *chain.Receipt) { r.Logs = nil },
	}
	if !paid(in, receipt(pair(in))) {
		t.Fatal("the right pair is no payment")
	}
	if paid(in, nil) {
		t.Error("no receipt is a payment")
	}
	for name, change := range cases {
		r := receipt(pair(in))
		change(r)
		if paid(in, r) {
			t.Errorf("%s: counts as a payment", name)
		}
	}
}

// In a transaction with many payments, those that are there count, and no others, whatever stands between them.
func TestPaidInBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var logs []types.Log
		intents := make([]settlement.Intent, rapid.IntRange(1, 6).Draw(t, "payments"))
		there := make([]bool, len(intents))
		for i := range intents {
			intents[i] = testIntent()
			intents[i].Authorization.Nonce = common.Hash{byte(i)}
			intents[i].Authorization.Value.SetUint64(rapid.Uint64Range(1, 3).Draw(t, "value"))
			p := pair(intents[i])
			switch rapid.SampledFrom([]string{"whole", "missing", "used", "moved", "torn"}).Draw(t, "kind") {
			case "whole":
				there[i] = true
				logs = append(logs, p...)
			case "used":
				logs = append(logs, p[0], types.Log{Address: common.Address{9}})
			case "moved":
				logs = append(logs, types.Log{Address: common.Address{9}}, p[1])
			case "torn":
				logs = append(logs, p[0], types.Log{Address: p[0].Address}, p[1])
			}
		}
		r := receipt(logs)
		for i, in := range intents {
			if got := paid(in, r); got != there[i] {
				t.Errorf("payment %d: got %v, want %v", i, got, there[i])
			}
		}
	})
}
