package wallet

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// stateAge is how long the wallet's balance, count and fees are taken for granted.
const stateAge = 2 * time.Second

// nonceTries bounds how often a nonce that others took is tried again. Within one process it is never
// taken; the others are other processes.
const nonceTries = 64

// lane is one wallet's way onto the chain: its nonce, taken by one at a time, and what is known of it.
type lane struct {
	// nonce is held from asking for the next nonce until it is recorded.
	nonce lock
	// looking is held while the state is asked for.
	looking lock
	last    atomic.Pointer[laneState]
}

func (l *lane) init() { l.nonce, l.looking = newLock(), newLock() }

// laneState is the wallet at a moment.
type laneState struct {
	maxFee, tip *big.Int
	balance     big.Int
	// count is the number of its transactions that were mined.
	count uint64
	at    time.Time
}

// state is the wallet's, at most stateAge old. The error wraps settlement.ErrUnavailable.
func (s *Settler) state(ctx context.Context) (*laneState, error) {
	if st := s.lane.last.Load(); st != nil && s.now().Sub(st.at) < stateAge {
		return st, nil
	}
	if err := s.lane.looking.lock(ctx); err != nil {
		return nil, unavailable(err)
	}
	defer s.lane.looking.unlock()
	if st := s.lane.last.Load(); st != nil && s.now().Sub(st.at) < stateAge {
		return st, nil
	}
	st := &laneState{at: s.now()}
	var fees chain.Fees
	queries := append(fees.Queries(), chain.BalanceQuery(s.address, &st.balance), chain.CountQuery(s.address, &st.count))
	if _, err := s.chain.Ask(ctx, queries...); err != nil {
		return nil, err
	}
	var err error
	if st.maxFee, st.tip, err = fees.Result(); err != nil {
		return nil, unavailable(err)
	}
	s.lane.last.Store(st)
	return st, nil
}

// affordable is state, if a transaction may be sent now.
func (s *Settler) affordable(ctx context.Context) (*laneState, error) {
	st, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.enoughGas(ctx, &st.balance); err != nil {
		s.lane.last.CompareAndSwap(st, nil) // whoever fills it up shall not wait
		return nil, err
	}
	if most := s.set().MaxFeePerGas; st.maxFee.Cmp(most) > 0 {
		return nil, fmt.Errorf("%w: gas costs up to %s wei, the ceiling is %s", settlement.ErrUnavailable, st.maxFee, most)
	}
	return st, nil
}

// record signs the transfer with the wallet's next nonce and writes it down. If meanwhile somebody recorded
// a transaction for the payment, all of its transactions come back instead: known is the number
// that the caller knew.
func (s *Settler) record(
	ctx context.Context, in settlement.Intent, t transfer, gas uint64, known int,
) (txs []settlement.Transaction, made bool, err error) {
	st, err := s.affordable(ctx)
	if err != nil {
		return nil, false, err
	}
	if err := s.lane.nonce.lock(ctx); err != nil {
		return nil, false, unavailable(err)
	}
	defer s.lane.nonce.unlock()
	for range nonceTries {
		nonce, err := s.nextNonce(ctx, st)
		if err != nil {
			return nil, false, err
		}
		// Read after the nonce: whoever records for this payment from now on takes the nonce away.
		if txs, err = s.journal.Transactions(ctx, in.Payment); err != nil {
			return nil, false, unavailable(err)
		}
		if len(txs) > known {
			return txs, false, nil
		}
		tx, err := s.sign(in, t, nonce, gas, st)
		if err != nil {
			return nil, false, err
		}
		err = s.journal.Record(ctx, tx)
		if err == nil {
			return append(txs, tx), true, nil
		}
		if !errors.Is(err, settlement.ErrNonce) {
			return nil, false, err
		}
	}
	return nil, false, unavailable(fmt.Errorf("the nonce of %s was taken by others %d times in a row", s.address, nonceTries))
}

// nextNonce is the journal's, unless the chain is ahead of it.
func (s *Settler) nextNonce(ctx context.Context, st *laneState) (uint64, error) {
	nonce, known, err := s.journal.Nonce(ctx, s.network.ChainID, s.address)
	if err != nil {
		return 0, unavailable(err)
	}
	if !known {
		_, pending, err := s.chain.TransactionCount(ctx, s.address)
		if pending > 0 {
			s.losses.note(signs{fresh: true})
		}
		return pending, err
	}
	if nonce >= st.count {
		return nonce, nil
	}
	s.log.WarnContext(ctx, "the wallet was used elsewhere, or the ledger lost what it had recorded: its nonce is set after the chain's",
		"wallet", s.address, "journal", nonce, "chain", st.count)
	s.losses.note(signs{behind: true, nonce: nonce})
	if err := s.journal.Advance(ctx, s.network.ChainID, s.address, st.count); err != nil {
		return 0, unavailable(err)
	}
	return st.count, nil
}

func (s *Settler) sign(
	in settlement.Intent, t transfer, nonce, gas uint64, st *laneState,
) (settlement.Transaction, error) {
	chainID := new(big.Int).SetUint64(s.network.ChainID)
	tx, err := types.SignNewTx(s.key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, GasTipCap: st.tip, GasFeeCap: st.maxFee, Gas: gas,
		To: &s.network.Asset.Address, Value: new(big.Int), Data: t.data,
	})
	if err != nil {
		return settlement.Transaction{}, fmt.Errorf("wallet: signing: %w", err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return settlement.Transaction{}, fmt.Errorf("wallet: encoding a transaction: %w", err)
	}
	return settlement.Transaction{
		ChainID: s.network.ChainID, Wallet: s.address, Nonce: nonce, Hash: tx.Hash(), Raw: raw,
		Payments: []string{in.Payment}, CreatedAt: s.now(),
	}, nil
}

// broadcast gives transactions to the chain. What is refused stays recorded and is tried again, so that an
// error here is only logged.
func (s *Settler) broadcast(ctx context.Context, txs []settlement.Transaction) {
	for _, tx := range txs {
		status, err := s.chain.SendRaw(ctx, tx.Raw)
		faultpoint.Reached("broadcast")
		switch {
		case status.Taken():
		case status == chain.NonceTooLow:
			s.lane.last.Store(nil) // the count is out of date
		default:
			s.log.WarnContext(ctx, "a transaction was not taken; it is tried again",
				"transaction", tx.Hash, "nonce", tx.Nonce, "status", status.String(), "error", err)
		}
	}
}
