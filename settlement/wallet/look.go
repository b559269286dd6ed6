package wallet

import (
	"context"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// survey is what the chain knows of recorded transactions.
type survey struct {
	head     chain.Head
	receipts []*chain.Receipt
	// open can still be mined; what is neither mined nor open is dead: its nonce went to another transaction.
	open []settlement.Transaction
	// counts are how many transactions of each wallet are mined.
	counts map[common.Address]*uint64
	// vanished: one of them was mined, and is no more.
	vanished bool
}

// survey asks one endpoint for the wallet's count, then for the receipts: in this order a transaction that
// is mined in between is not taken for dead.
func (s *Settler) survey(ctx context.Context, txs []settlement.Transaction) (survey, error) {
	sv := survey{counts: make(map[common.Address]*uint64)}
	receipts := make([]*chain.Receipt, len(txs))
	queries := []*chain.Query{chain.HeadQuery(&sv.head)}
	for _, tx := range txs { // an older transaction may be of another wallet: keys change
		if sv.counts[tx.Wallet] == nil {
			sv.counts[tx.Wallet] = new(uint64)
			queries = append(queries, chain.CountQuery(tx.Wallet, sv.counts[tx.Wallet]))
		}
	}
	for i, tx := range txs {
		queries = append(queries, chain.ReceiptQuery(tx.Hash, &receipts[i]))
	}
	number, err := s.chain.Ask(ctx, queries...)
	if err != nil {
		return survey{}, err
	}
	sv.head.Number = number // that of before all other answers
	for i, tx := range txs {
		switch {
		case receipts[i] != nil:
			sv.receipts = append(sv.receipts, receipts[i])
			s.mined.put(tx.Hash, receipts[i].Block)
		case tx.Nonce >= *sv.counts[tx.Wallet]:
			sv.open = append(sv.open, tx)
		}
		if _, was := s.mined.get(tx.Hash); was && receipts[i] == nil {
			sv.vanished = true
			s.mined.drop(tx.Hash)
			s.log.ErrorContext(ctx, "a mined transaction is gone from the chain; it is broadcast again", "transaction", tx.Hash)
		}
	}
	s.noteDead(txs, &sv)
	return sv, nil
}

// place is a nonce of a wallet: one transaction will be mined there.
type place struct {
	wallet common.Address
	nonce  uint64
}

func placeOf(tx *settlement.Transaction) place { return place{tx.Wallet, tx.Nonce} }
