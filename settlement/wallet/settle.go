package wallet

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// maxMade bounds how many transactions one call makes. A second one follows only when the wallet was used
// elsewhere, and its nonce went to a stranger's transaction.
const maxMade = 3

var (
	errNotMined    = errors.New("wallet: the transaction is not mined yet")
	errReorganized = fmt.Errorf("%w: the chain is being reorganised", settlement.ErrUnavailable)
	errOvertaken   = errors.New("wallet: the wallet's nonces are used elsewhere")
	errVanished    = errors.New("wallet: a mined transaction is gone from the chain")
)

// Settle makes the transfer, or goes on with the one that was made before, until its outcome is known or ctx ends.
func (s *Settler) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	done, err := s.enter()
	if err != nil {
		return unknown(err, nil)
	}
	defer done()
	if err := s.fits(in); err != nil {
		return unknown(err, nil)
	}
	txs, err := s.journal.Transactions(ctx, in.Payment)
	if err != nil {
		return unknown(unavailable(err), nil)
	}
	t := s.transfer(in)
	made := false // the last one was made by this call: nobody can have mined it yet
	for range maxMade + 1 {
		if len(txs) > 0 {
			out, dead := s.follow(ctx, in, t, txs, made)
			if !dead {
				return out
			}
		}
		gas, err := s.approve(ctx, in, t)
		if x402.ReasonOf(err) != "" {
			return s.refused(ctx, in, t, err)
		}
		if err != nil {
			return unknown(err, txs)
		}
		next, fresh, err := s.record(ctx, in, t, gas, len(txs))
		if errors.Is(err, settlement.ErrNotClaimed) {
			return s.notClaimed(ctx, in, err)
		}
		if err != nil {
			return unknown(err, txs)
		}
		txs, made = next, fresh
	}
	return unknown(errOvertaken, txs)
}

// approve gives the gas limit of a transfer that would succeed now; an *x402.Error if it would not.
func (s *Settler) approve(ctx context.Context, in settlement.Intent, t transfer) (gas uint64, err error) {
	if v, ok := s.recent.get(t.key); ok {
		s.recent.drop(t.key)
		if age := s.now().Sub(v.at); age >= 0 && age < freshness {
			return v.gas, nil
		}
	}
	v, err := s.simulate(ctx, in, t)
	return v.gas, err
}

// refused is the outcome of a transfer that would fail; nothing was sent for it. An authorization that was
// used since the claim may have paid us by another's hand.
func (s *Settler) refused(ctx context.Context, in settlement.Intent, t transfer, why error) settlement.Outcome {
	if x402.ReasonOf(why) != x402.ReasonNonceUsed {
		return failed(why, nil)
	}
	return s.elsewhere(ctx, in, t, nil, why)
}

// notClaimed is the outcome where the ledger no longer wants the payment settled. It may be because
// somebody found it settled.
func (s *Settler) notClaimed(ctx context.Context, in settlement.Intent, err error) settlement.Outcome {
	out := s.resolve(ctx, in)
	if out.Status == settlement.Unknown && out.Err == nil {
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonTransactionFailed, Err: err}
	}
	return out
}

// follow broadcasts the payment's transactions and waits for the first receipt. dead: none of them can be mined
// any more. made: the last one was never broadcast, so that there is no need to ask before.
func (s *Settler) follow(
	ctx context.Context, in settlement.Intent, t transfer, txs []settlement.Transaction, made bool,
) (out settlement.Outcome, dead bool) {
	open := txs[len(txs)-1:]
	if !made {
		open = nil
	}
	for {
		if open == nil {
			sv, err := s.survey(ctx, txs)
			switch {
			case err != nil && ctx.Err() != nil:
				return unknown(err, txs), false
			case err != nil:
				open = txs
			case len(sv.receipts) > 0:
				return s.judge(ctx, in, t, sv.receipts), false
			case len(sv.open) == 0:
				return settlement.Outcome{}, true
			default:
				open = sv.open
			}
		}
		s.broadcast(ctx, open)
		open = nil
		r, err := s.await(ctx, txs)
		switch {
		case r != nil:
			s.mined.put(r.Transaction, r.Block)
			return s.judge(ctx, in, t, []*chain.Receipt{r}), false
		case ctx.Err() != nil:
			return unknown(fmt.Errorf("%w: %w", errNotMined, ctx.Err()), txs), false
		case errors.Is(err, chain.ErrClosed):
			return unknown(err, txs), false
		}
	}
}

// await waits for a receipt, at most until it is time to look after the transactions.
func (s *Settler) await(ctx context.Context, txs []settlement.Transaction) (*chain.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, s.set().Rebroadcast)
	defer cancel()
	hashes := make([]common.Hash, len(txs))
	for i, tx := range txs {
		hashes[i] = tx.Hash
	}
	return s.chain.AwaitReceipt(ctx, hashes...)
}

// judge says what the receipts of our transactions mean for the payment.
func (s *Settler) judge(ctx context.Context, in settlement.Intent, t transfer, receipts []*chain.Receipt) settlement.Outcome {
	for _, r := range receipts {
		if paid(in, r) {
			return settled(r)
		}
	}
	return s.elsewhere(ctx, in, t, receipts[len(receipts)-1], nil)
}

// survey is what the chain knows of recorded transactions.
type survey struct {
	head     uint64
	receipts []*chain.Receipt
	// open can still be mined; what is neither mined nor open is dead: its nonce went to another transaction.
	open []settlement.Transaction
	// vanished: one of them was mined, and is no more.
	vanished bool
}

// survey asks one endpoint for the wallet's count, then for the receipts: in this order a transaction that
// is mined in between is not taken for dead.
func (s *Settler) survey(ctx context.Context, txs []settlement.Transaction) (survey, error) {
	var sv survey
	receipts := make([]*chain.Receipt, len(txs))
	var queries []*chain.Query
	counts := make(map[common.Address]*uint64)
	for _, tx := range txs { // an older transaction may be of another wallet: keys change
		if counts[tx.Wallet] == nil {
			counts[tx.Wallet] = new(uint64)
			queries = append(queries, chain.CountQuery(tx.Wallet, counts[tx.Wallet]))
		}
	}
	for i, tx := range txs {
		queries = append(queries, chain.ReceiptQuery(tx.Hash, &receipts[i]))
	}
	var err error
	if sv.head, err = s.chain.Ask(ctx, queries...); err != nil {
		return sv, err
	}
	for i, tx := range txs {
		switch {
		case receipts[i] != nil:
			sv.receipts = append(sv.receipts, receipts[i])
			s.mined.put(tx.Hash, receipts[i].Block)
		case tx.Nonce >= *counts[tx.Wallet]:
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
