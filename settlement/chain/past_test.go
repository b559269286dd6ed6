package chain_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// What an account did up to a block, and what its transactions were; a state that is not kept is told from an endpoint that
// does not answer.
func TestPast(t *testing.T) {
	dev := startChain(t, devnet.Options{Heartbeat: -1})
	dev.Stall()
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: urls})
	payer := devnet.Payer(0).Address
	first, err := c.Head(t.Context())
	check(t, err)
	const sent = 150 // more than one batch
	hashes := make([]common.Hash, sent, sent+1)
	for i := range hashes {
		tx := transfer(t, 0, uint64(i), nil)
		hashes[i] = tx.Hash()
		_, err := c.SendRaw(t.Context(), raw(t, tx))
		check(t, err)
		if i == 9 {
			check(t, dev.Commit())
		}
	}
	check(t, dev.Commit())
	check(t, dev.Commit())
	for ahead, want := range []uint64{0, 10, sent, sent} {
		n, err := c.CountAt(t.Context(), payer, first.Number+uint64(ahead))
		if err != nil || n != want {
			t.Errorf("%d blocks later: %d transactions, %v; want %d", ahead, n, err, want)
		}
		b, err := c.Block(t.Context(), first.Number+uint64(ahead))
		if err != nil || b.Number != first.Number+uint64(ahead) || ahead == 0 && b.Hash != first.Hash {
			t.Errorf("%d blocks later: %+v, %v", ahead, b, err)
		}
	}
	txs, err := c.Transactions(t.Context(), append(hashes, common.Hash{1}))
	check(t, err)
	for i, tx := range txs {
		switch {
		case i == sent:
			if tx != nil {
				t.Errorf("a transaction that nobody made: %+v", tx)
			}
		case tx == nil || tx.Hash != hashes[i] || tx.From != payer || tx.Nonce != uint64(i) || tx.To == nil || tx.BlockHash == (common.Hash{}):
			t.Errorf("transaction %d: %+v", i, tx)
		}
	}

	p[0].Refuse(func(method, _ string) string {
		if method == "eth_getTransactionCount" {
			return "missing trie node"
		}
		return ""
	})
	if _, err := c.CountAt(t.Context(), payer, 0); !errors.Is(err, chain.ErrNoState) || errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("a state that is not kept: %v", err)
	}
	p[0].FailAll(503)
	if _, err := c.CountAt(t.Context(), payer, 0); errors.Is(err, chain.ErrNoState) || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("an endpoint that is down: %v", err)
	}
}

// Whatever an endpoint answers, a transaction is read whole or not at all.
func FuzzTransaction(f *testing.F) {
	f.Add([]byte(`{"hash":"0x0100000000000000000000000000000000000000000000000000000000000000","from":"0x0000000000000000000000000000000000000001","to":null,"nonce":"0x1","input":"0x","blockHash":null}`))
	f.Add([]byte(`{"hash":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tx := chain.Transaction{Nonce: 7}
		if err := json.Unmarshal(b, &tx); err != nil {
			if tx.Nonce != 7 || tx.Input != nil {
				t.Errorf("a part of it was read: %+v", tx)
			}
			return
		}
		var v map[string]json.RawMessage
		if json.Unmarshal(b, &v) != nil {
			t.Errorf("it is no object: %q", b)
		}
	})
}
