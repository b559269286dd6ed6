package wallet

import (
	"slices"
	"sync"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// safeKept is how many receipts are kept. Payments are looked at again in the order in which they were settled, so those of a
// transaction come one after the other.
const safeKept = 16

// safeReceipts are the last receipts that were found in a safe block. A batch carries a hundred payments, and each is looked at
// once more when its block is safe: one question to the chain is enough for all of them.
type safeReceipts struct {
	mu   sync.Mutex
	list []*chain.Receipt // newest last
}

func (s *safeReceipts) put(r *chain.Receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.list, func(x *chain.Receipt) bool { return x.Transaction == r.Transaction }) {
		return
	}
	if len(s.list) == safeKept {
		s.list = slices.Delete(s.list, 0, 1)
	}
	s.list = append(s.list, r)
}

// of gives the receipt of one of txs, if they are all of one nonce: then nothing else of them can be mined any more.
func (s *safeReceipts) of(txs []settlement.Transaction) *chain.Receipt {
	if len(txs) == 0 || slices.ContainsFunc(txs, func(t settlement.Transaction) bool { return placeOf(&t) != placeOf(&txs[0]) }) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(s.list) {
		if slices.ContainsFunc(txs, func(t settlement.Transaction) bool { return t.Hash == r.Transaction }) {
			return r
		}
	}
	return nil
}
