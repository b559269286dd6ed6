package wallet

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

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
	signer  Signer
	address common.Address
	// nonce is held from asking for the next nonce until it is recorded.
	nonce lock
	// looking is held while the state is asked for.
	looking lock
	last    atomic.Pointer[laneState]
	// seen is what is told of the wallet: unlike last, it is never forgotten.
	seen atomic.Pointer[sighting]
	// flying is how many of its transactions are under way from here.
	flying atomic.Int32
	// busy: it is at a batch that is not sent yet.
	busy atomic.Bool
	// unfit is until when it leaves payments to the other lanes, as Unix nanoseconds: its wallet lacks gas.
	unfit atomic.Int64
}

func newLane(signer Signer) *lane {
	return &lane{signer: signer, address: signer.Address(), nonce: newLock(), looking: newLock()}
}

// laneState is the wallet at a moment.
type laneState struct {
	maxFee, tip *big.Int
	balance     big.Int
	// count is the number of its transactions that were mined.
	count uint64
	at    time.Time
}

// state is the wallet's, at most stateAge old. The error wraps settlement.ErrUnavailable.
func (s *Settler) state(ctx context.Context, l *lane) (*laneState, error) {
	if st := l.last.Load(); st != nil && s.now().Sub(st.at) < stateAge {
		return st, nil
	}
	if err := l.looking.lock(ctx); err != nil {
		return nil, unavailable(err)
	}
	defer l.looking.unlock()
	if st := l.last.Load(); st != nil && s.now().Sub(st.at) < stateAge {
		return st, nil
	}
	st := &laneState{at: s.now()}
	var fees chain.Fees
	queries := append(fees.Queries(), chain.BalanceQuery(l.address, &st.balance), chain.CountQuery(l.address, &st.count))
	if _, err := s.chain.Ask(ctx, queries...); err != nil {
		return nil, err
	}
	var err error
	if st.maxFee, st.tip, err = fees.Result(); err != nil {
		return nil, unavailable(err)
	}
	l.last.Store(st)
	l.saw(&st.balance, st.count, st.at)
	return st, nil
}

// affordable is state, if a transaction may be sent now.
func (s *Settler) affordable(ctx context.Context, l *lane) (*laneState, error) {
	st, err := s.state(ctx, l)
	if err != nil {
		return nil, err
	}
	if err := s.enoughGas(ctx, l, &st.balance); err != nil {
		l.last.CompareAndSwap(st, nil) // whoever fills it up shall not wait
		return nil, err
	}
	if most := s.set().MaxFeePerGas; st.maxFee.Cmp(most) > 0 {
		return nil, fmt.Errorf("%w: gas costs up to %s wei, the ceiling is %s", settlement.ErrUnavailable, st.maxFee, most)
	}
	return st, nil
}

// errNoGas: the wallet has too little ether to pay gas with.
var errNoGas = fmt.Errorf("%w: the gas wallet is empty", settlement.ErrUnavailable)

// errTooDear: it has too little for this transaction.
var errTooDear = fmt.Errorf("%w for this transaction", errNoGas)

// errSigner: who signs for the wallet does not.
var errSigner = fmt.Errorf("%w: signing failed", settlement.ErrUnavailable)

// signTimeout bounds one signature, where the signer itself does not (the KMS gives up after 10 s): other lanes have others.
const signTimeout = 12 * time.Second

// enoughGas judges a wallet's balance.
func (s *Settler) enoughGas(ctx context.Context, l *lane, wei *big.Int) error {
	set := s.set()
	if set.HardBalance != nil && wei.Cmp(set.HardBalance) < 0 {
		return fmt.Errorf("%w: %s has %s wei, the floor is %s", errNoGas, l.address, wei, set.HardBalance)
	}
	if set.WarnBalance != nil && wei.Cmp(set.WarnBalance) < 0 {
		s.log.WarnContext(ctx, "the gas wallet needs money", "wallet", l.address, "wei", wei, "warn_below", set.WarnBalance)
	}
	return nil
}

// call is what a transaction of ours does.
type call struct {
	to   common.Address
	data []byte
	gas  uint64
}

// record signs c with the wallet's next nonce and writes it down, for these payments. If somebody has recorded a
// transaction for one of them meanwhile, errKnown is returned. It may be that nothing or all was recorded where the error
// is none of the journal's own.
func (s *Settler) record(ctx context.Context, l *lane, c call, carried []*job) (settlement.Transaction, error) {
	st, err := s.affordable(ctx, l)
	if err != nil {
		return settlement.Transaction{}, err
	}
	if err := l.nonce.lock(ctx); err != nil {
		return settlement.Transaction{}, unavailable(err)
	}
	defer l.nonce.unlock()
	for range nonceTries {
		nonce, err := s.nextNonce(ctx, l, st)
		if err != nil {
			return settlement.Transaction{}, err
		}
		// Read after the nonce: whoever records for these payments with this wallet from now on takes the nonce away.
		if err := s.overtaken(ctx, carried); err != nil {
			return settlement.Transaction{}, err
		}
		tx, err := s.sign(ctx, l, c, nonce, fees{st.maxFee, st.tip})
		if err != nil {
			return settlement.Transaction{}, err
		}
		for _, j := range carried {
			tx.Payments = append(tx.Payments, j.in.Payment)
		}
		worst := new(big.Int).Mul(st.maxFee, new(big.Int).SetUint64(c.gas))
		if st.balance.Cmp(worst) < 0 { // no node would take it, and its nonce would block the lane
			l.last.CompareAndSwap(st, nil)
			return settlement.Transaction{}, fmt.Errorf("%w: %s has %s wei, the transaction may cost %s", errTooDear, l.address, &st.balance, worst)
		}
		if err := s.costs.reserve(s.now(), placeOf(&tx), worst, s.set().SpendPerHour); err != nil {
			return settlement.Transaction{}, err
		}
		err = s.journal.Record(ctx, tx)
		if errors.Is(err, settlement.ErrNonce) || errors.Is(err, settlement.ErrNotClaimed) {
			s.costs.settle(placeOf(&tx), nil)
		}
		if !errors.Is(err, settlement.ErrNonce) {
			return tx, err
		}
	}
	return settlement.Transaction{}, unavailable(fmt.Errorf("the nonce of %s was taken by others %d times in a row", l.address, nonceTries))
}

// errKnown: another process has recorded a transaction for a payment of the batch.
var errKnown = errors.New("wallet: another process has recorded a transaction for the payment")

// recorded are the payment's transactions, oldest first. Notes of other settlers are none: the chain knows nothing of them.
func (s *Settler) recorded(ctx context.Context, payment string) ([]settlement.Transaction, error) {
	txs, err := s.journal.Transactions(ctx, payment)
	if err != nil {
		return nil, unavailable(err)
	}
	return slices.DeleteFunc(txs, func(t settlement.Transaction) bool {
		_, note := t.Note()
		return note
	}), nil
}

// readers is how many questions are put to the journal at once: meanwhile others may take the nonce.
const readers = 16

// overtaken looks whether the journal has more transactions of the payments than are known here.
func (s *Settler) overtaken(ctx context.Context, carried []*job) error {
	errs := make([]error, len(carried))
	var wg sync.WaitGroup
	for part := range min(readers, len(carried)) {
		wg.Go(func() {
			for i := part; i < len(carried) && ctx.Err() == nil; i += readers {
				j := carried[i]
				txs, err := s.recorded(ctx, j.in.Payment)
				if errs[i] = err; len(txs) > len(j.txs) {
					j.found = txs
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errors.Join(errs...), ctx.Err()); err != nil {
		return unavailable(err)
	}
	if slices.ContainsFunc(carried, func(j *job) bool { return j.found != nil }) {
		return errKnown
	}
	return nil
}

// nextNonce is the journal's, unless the chain is ahead of it.
func (s *Settler) nextNonce(ctx context.Context, l *lane, st *laneState) (uint64, error) {
	nonce, known, err := s.journal.Nonce(ctx, s.network.ChainID, l.address)
	if err != nil {
		return 0, unavailable(err)
	}
	if !known {
		_, pending, err := s.chain.TransactionCount(ctx, l.address)
		if pending > 0 {
			s.losses.note(signs{fresh: true})
		}
		return pending, err
	}
	if nonce >= st.count {
		return nonce, nil
	}
	s.log.WarnContext(ctx, "the wallet was used elsewhere, or the ledger lost what it had recorded: its nonce is set after the chain's",
		"wallet", l.address, "journal", nonce, "chain", st.count)
	s.losses.note(behind(l.address, nonce))
	if err := s.journal.Advance(ctx, s.network.ChainID, l.address, st.count); err != nil {
		return 0, unavailable(err)
	}
	return st.count, nil
}

// signature asks the signer, which may be anybody's code.
func (l *lane) signature(ctx context.Context, digest common.Hash) (sig []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the signer panicked: %v", r)
		}
	}()
	return l.signer.Sign(ctx, digest)
}

// sign makes a transaction of the wallet.
func (s *Settler) sign(ctx context.Context, l *lane, c call, nonce uint64, f fees) (settlement.Transaction, error) {
	chainID := new(big.Int).SetUint64(s.network.ChainID)
	kind := types.LatestSignerForChainID(chainID)
	tx := types.NewTx(&types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, GasTipCap: f.tip, GasFeeCap: f.max, Gas: c.gas, To: &c.to, Value: new(big.Int), Data: c.data,
	})
	sig, err := l.signature(ctx, kind.Hash(tx))
	if err != nil {
		return settlement.Transaction{}, fmt.Errorf("%w: %s: %w", errSigner, l.address, err)
	}
	if tx, err = tx.WithSignature(kind, sig); err != nil {
		return settlement.Transaction{}, fmt.Errorf("wallet: signing: %w", err)
	}
	if from, err := types.Sender(kind, tx); err != nil || from != l.address {
		return settlement.Transaction{}, fmt.Errorf("wallet: the signature for %s is another's (%s)", l.address, from)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return settlement.Transaction{}, fmt.Errorf("wallet: encoding a transaction: %w", err)
	}
	return settlement.Transaction{
		ChainID: s.network.ChainID, Wallet: l.address, Nonce: nonce, Hash: tx.Hash(), Raw: raw, CreatedAt: s.now(),
	}, nil
}
