package wallet

import (
	"log/slog"
	"maps"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The first block is found wherever it is, with few questions, and fewer the nearer it is.
func TestFirstBlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		head := rapid.Uint64Range(0, 1<<40).Draw(t, "head")
		first := head - min(head, rapid.Uint64Range(0, 1<<rapid.IntRange(0, 40).Draw(t, "magnitude")).Draw(t, "distance"))
		asked := 0
		got, err := firstBlock(head, func(n uint64) (bool, error) {
			asked++
			if n > head {
				t.Fatalf("asked for block %d above the head", n)
			}
			return n >= first, nil
		})
		if err != nil || got != first {
			t.Fatalf("got %d, %v, want %d", got, err, first)
		}
		most := 4
		for d := head - first; d > 0; d /= 2 {
			most += 2
		}
		if asked > most {
			t.Fatalf("%d questions for %d blocks", asked, head-first)
		}
	})
}

// A transaction is dead if it is neither mined nor can be, unless one that replaced it was mined; it is noticed once.
func TestNoteDead(t *testing.T) {
	me, other := common.Address{1}, common.Address{2}
	tx := func(n uint64, hash byte) settlement.Transaction {
		return settlement.Transaction{Wallet: me, Nonce: n, Hash: common.Hash{hash}}
	}
	theirs := tx(1, 9)
	theirs.Wallet = other
	cases := map[string]struct {
		txs      []settlement.Transaction
		receipts []byte
		open     []settlement.Transaction
		want     signs
	}{
		"nothing":               {},
		"mined":                 {txs: []settlement.Transaction{tx(5, 1)}, receipts: []byte{1}},
		"open":                  {txs: []settlement.Transaction{tx(5, 1)}, open: []settlement.Transaction{tx(5, 1)}},
		"dead":                  {txs: []settlement.Transaction{tx(5, 1)}, want: behind(me, 5)},
		"replaced":              {txs: []settlement.Transaction{tx(5, 1), tx(5, 2)}, receipts: []byte{2}},
		"dead, then made again": {txs: []settlement.Transaction{tx(5, 1), tx(6, 2)}, receipts: []byte{2}, want: behind(me, 5)},
		"two dead":              {txs: []settlement.Transaction{tx(6, 1), tx(5, 2)}, want: behind(me, 5)},
		"of another wallet":     {txs: []settlement.Transaction{theirs}},
	}
	for name, tc := range cases {
		s := &Settler{lanes: []*lane{{address: me}}}
		sv := survey{open: tc.open}
		for _, h := range tc.receipts {
			sv.receipts = append(sv.receipts, &chain.Receipt{Transaction: common.Hash{h}})
		}
		s.noteDead(tc.txs, &sv)
		if got := s.losses.take(); !maps.Equal(got.behind, tc.want.behind) || got.fresh != tc.want.fresh {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
		s.noteDead(tc.txs, &sv)
		if got := s.losses.take(); got.any() {
			t.Errorf("%s, a second time: %+v", name, got)
		}
	}
}

// Calldata is believed only where the logs say the same, and only that of our own wallets.
func TestCalldataIsCheckedAgainstLogs(t *testing.T) {
	me, former, payer, payTo, token := common.Address{1}, common.Address{2}, common.Address{3}, common.Address{4}, common.Address{5}
	a := x402.Authorization{From: payer, To: payTo, Nonce: common.Hash{6}}
	a.Value.SetUint64(7)
	value := a.Value.Bytes32()
	m := movement{from: payer, nonce: a.Nonce, transfer: types.Log{
		Topics: []common.Hash{x402.TopicTransfer, topic(payer), topic(payTo)}, Data: value[:],
	}}
	s := &Settler{lanes: []*lane{{address: me}}, network: x402.Network{Asset: x402.Asset{Address: token}}, log: slog.New(slog.DiscardHandler)}
	cases := map[string]struct {
		change func(*x402.Authorization, *chain.Transaction)
		want   bool
	}{
		"ours":              {func(*x402.Authorization, *chain.Transaction) {}, true},
		"a former wallet's": {func(_ *x402.Authorization, t *chain.Transaction) { t.From = former }, true},
		"a stranger's":      {func(_ *x402.Authorization, t *chain.Transaction) { t.From = payer }, false},
		"another contract":  {func(_ *x402.Authorization, t *chain.Transaction) { t.To = &former }, false},
		"no contract":       {func(_ *x402.Authorization, t *chain.Transaction) { t.To = nil }, false},
		"another payer":     {func(a *x402.Authorization, _ *chain.Transaction) { a.From = former }, false},
		"another payee":     {func(a *x402.Authorization, _ *chain.Transaction) { a.To = former }, false},
		"another value":     {func(a *x402.Authorization, _ *chain.Transaction) { a.Value.SetUint64(8) }, false},
		"another nonce":     {func(a *x402.Authorization, _ *chain.Transaction) { a.Nonce[0]++ }, false},
	}
	for _, form := range []int{65, 130} {
		for name, tc := range cases {
			said, tx := a, chain.Transaction{From: me, To: &token}
			tc.change(&said, &tx)
			sig := make([]byte, form)
			if form == 65 {
				sig[64] = 27
			}
			tx.Input = said.TransferCalldata(sig)
			if got, ok := s.sent(settlement.Survey{Wallets: []common.Address{former}}, &tx, m); ok != tc.want || ok && got != a {
				t.Errorf("%s, a signature of %d bytes: %t, %+v", name, form, ok, got)
			}
			tx.Input = append(tx.Input, 0)
			if _, ok := s.sent(settlement.Survey{}, &tx, m); ok {
				t.Errorf("%s: it is taken for ours although it is not encoded as we do", name)
			}
		}
	}
}
