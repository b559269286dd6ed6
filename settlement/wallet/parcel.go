package wallet

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// parcel is what was sent under one nonce of a wallet: one transaction, and those that replaced it with higher fees. One
// goroutine carries it, all who wait for one of its payments share it.
type parcel struct {
	place
	// first is the transaction that it began with.
	first settlement.Transaction
	// landed is closed when it is known what became of it: receipt is set, or err says why nobody looks after it any more, or
	// else it is dead: another transaction took its nonce, or one of ours that only frees it (then freed is its receipt).
	landed         chan struct{}
	receipt, freed *chain.Receipt
	err            error

	mu  sync.Mutex
	txs []settlement.Transaction // oldest first
}

// all are its transactions, oldest first.
func (p *parcel) all() []settlement.Transaction {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.txs)
}

func (p *parcel) add(txs ...settlement.Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tx := range txs {
		if !slices.ContainsFunc(p.txs, func(t settlement.Transaction) bool { return t.Hash == tx.Hash }) {
			p.txs = append(p.txs, tx)
		}
	}
}

// parcels are those that are carried here.
type parcels struct {
	mu sync.Mutex
	m  map[place]*parcel
}

// join gives the parcel of a transaction's nonce, with the transaction in it. fresh: nobody carries it yet.
func (ps *parcels) join(tx settlement.Transaction) (p *parcel, fresh bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p = ps.m[placeOf(&tx)]
	if p == nil {
		if ps.m == nil {
			ps.m = make(map[place]*parcel)
		}
		p, fresh = &parcel{place: placeOf(&tx), first: tx, landed: make(chan struct{})}, true
		ps.m[p.place] = p
	}
	p.add(tx)
	return p, fresh
}

func (ps *parcels) has(at place) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.m[at] != nil
}

func (ps *parcels) remove(p *parcel) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.m, p.place)
}

// adopt carries transactions that were recorded before, and can still be mined. They are of one nonce, but for a payment
// that two processes recorded at once with wallets of their own: then the newest is waited for.
func (s *Settler) adopt(open []settlement.Transaction) (p *parcel) {
	for _, tx := range open {
		one, fresh := s.parcels.join(tx)
		if fresh {
			s.crew.Go(func() { s.carry(one, false) })
		}
		p = one
	}
	return p
}

// carry looks after a parcel until it has landed. made: it was never broadcast, so that there is no need to ask before.
func (s *Settler) carry(p *parcel, made bool) {
	defer func() {
		s.parcels.remove(p)
		s.account(p)
		close(p.landed)
	}()
	status := chain.Accepted
	for {
		if !made {
			txs := p.all()
			sv, err := s.survey(s.ctx, txs)
			switch {
			case s.ctx.Err() != nil:
				p.err = errClosed
				return
			case err != nil: // nobody answers now: it is sent all the same
			case len(sv.receipts) > 0:
				p.land(sv.receipts[0])
				return
			case len(sv.open) == 0:
				return
			default:
				if next := s.tend(s.ctx, txs, &sv, status == chain.Underpriced); next != nil {
					p.add(*next)
				}
			}
		}
		made = false
		txs := p.all()
		status = s.broadcast(s.ctx, txs[len(txs)-1])
		r, err := s.await(s.ctx, txs)
		switch {
		case r != nil:
			s.mined.put(r.Transaction, r.Block)
			p.land(r)
			return
		case s.ctx.Err() != nil, errors.Is(err, chain.ErrClosed):
			p.err = errClosed
			return
		}
	}
}

// land notes the receipt, unless it is that of a transfer that only freed the nonce: then the parcel is dead.
func (p *parcel) land(r *chain.Receipt) {
	for _, tx := range p.all() {
		if tx.Hash == r.Transaction && len(tx.Payments) == 0 {
			p.freed = r
			return
		}
	}
	p.receipt = r
}

// spent is what was paid for it in wei; nil if that is not known.
func (p *parcel) spent() *big.Int {
	for _, r := range []*chain.Receipt{p.receipt, p.freed} {
		if r != nil {
			return r.Cost
		}
	}
	return nil
}

// account notes what a parcel cost in the end.
func (s *Settler) account(p *parcel) {
	if p.err == nil {
		s.costs.settle(p.place, p.spent())
	}
	r, n := p.receipt, len(p.first.Payments)
	if r == nil {
		r, n = p.freed, 0
	}
	f := s.set().Mined
	if r == nil || f == nil {
		return
	}
	defer func() { // what only counts must not end the one who looks after the money
		if v := recover(); v != nil {
			s.log.Error("noting a mined transaction failed", "transaction", r.Transaction, "error", v)
		}
	}()
	f(Mined{Wallet: p.wallet, Payments: n, OK: r.OK, GasUsed: r.GasUsed, Cost: r.Cost})
}

// learn notes what payments take that may travel with others. What failed, or burned what there was, teaches nothing.
func (s *Settler) learn(r *chain.Receipt, payments int) {
	if r == nil || !r.OK || payments == 0 {
		return
	}
	made := 0
	for i := range r.Logs {
		if l := &r.Logs[i]; l.Address == s.network.Asset.Address && len(l.Topics) > 0 && l.Topics[0] == x402.TopicAuthorizationUsed {
			made++
		}
	}
	per := min(r.GasUsed/uint64(payments), s.set().GasLimit)
	if made == payments && per > s.gasPerPayment.Load() {
		s.gasPerPayment.Store(per)
	}
}

// Mined is a transaction of ours that came onto the chain.
type Mined struct {
	Wallet common.Address
	// Payments is how many it carried, none if it only freed a nonce; OK is false if it reverted as a whole.
	Payments int
	OK       bool
	GasUsed  uint64
	// Cost is what was paid for it in wei, with what a rollup takes for its settlement layer where the node tells.
	Cost *big.Int
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

// broadcast gives a transaction to the chain. What is refused stays recorded and is tried again, so that an
// error here is only logged.
func (s *Settler) broadcast(ctx context.Context, tx settlement.Transaction) chain.SendStatus {
	status, err := s.chain.SendRaw(ctx, tx.Raw)
	faultpoint.Reached("broadcast")
	l := s.laneOf(tx.Wallet)
	switch {
	case status.Taken() || ctx.Err() != nil:
		return status
	case status == chain.NonceTooLow:
		if l != nil {
			l.last.Store(nil) // the count is out of date
		}
		return status
	case status == chain.Insufficient && l != nil:
		l.last.Store(nil)
		l.unfit.Store(s.now().Add(unfitFor).UnixNano())
	}
	s.log.WarnContext(ctx, "a transaction was not taken; it is tried again",
		"transaction", tx.Hash, "wallet", tx.Wallet, "nonce", tx.Nonce, "status", status.String(), "error", err)
	return status
}

// tend makes a transaction that replaces a stuck one, if it is time: with higher fees; or, if its payments can't be made
// any more, with one that only frees the nonce for those behind it. txs are all of one nonce, oldest first. urgent: the node
// finds its fees too low. Nil: there is nothing to do, or nothing can be done now.
func (s *Settler) tend(ctx context.Context, txs []settlement.Transaction, sv *survey, urgent bool) *settlement.Transaction {
	last := txs[len(txs)-1]
	l := s.laneOf(last.Wallet)
	if l == nil || last.Nonce != *sv.counts[last.Wallet] { // what comes before it is to be mined first
		return nil
	}
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(last.Raw); err != nil || tx.To() == nil {
		s.log.ErrorContext(ctx, "a recorded transaction can't be read", "transaction", last.Hash, "error", err)
		return nil
	}
	free := s.useless(tx, sv.head)
	if !free && !urgent && s.age(&last, sv.head) < s.set().StuckAfter {
		return nil
	}
	next, err := s.replace(ctx, l, &last, tx, free)
	if errors.Is(err, settlement.ErrNotClaimed) && !free {
		free = true // one of its payments was ended: they can't be sent again together
		next, err = s.replace(ctx, l, &last, tx, free)
	}
	switch {
	case errors.Is(err, errCeiling), errors.Is(err, errSpent):
		s.log.WarnContext(ctx, "a transaction waits: higher fees would be above the ceiling, or above what may be spent", "transaction", last.Hash, "error", err)
		return nil
	case err != nil:
		s.log.WarnContext(ctx, "a stuck transaction could not be replaced; it is tried again", "transaction", last.Hash, "error", err)
		return nil
	}
	if free {
		for _, t := range txs {
			s.freed.put(t.Hash, struct{}{})
		}
	}
	if f := s.set().Replaced; f != nil {
		f()
	}
	s.log.InfoContext(ctx, "a stuck transaction is replaced", "transaction", last.Hash, "by", next.Hash, "nonce", last.Nonce, "frees_nonce", free)
	return &next
}

// age is how long a transaction has waited, by the chain's own time: a node that lags behind makes it younger, not older. So
// does a clock of ours that is behind the chain's.
func (s *Settler) age(tx *settlement.Transaction, head chain.Head) time.Duration {
	byChain := time.Unix(int64(min(head.Time, 1<<40)), 0).Sub(tx.CreatedAt)
	return min(byChain, s.now().Sub(tx.CreatedAt))
}

// useless reports whether nothing that the transaction carries can be executed any more.
func (s *Settler) useless(tx *types.Transaction, head chain.Head) bool {
	carried := s.authorizations(*tx.To(), tx.Data())
	for i := range carried {
		if end, over := carried[i].ValidBefore.Uint64WithOverflow(); over || end > head.Time {
			return false
		}
	}
	return len(carried) > 0
}

// replace records a transaction with the nonce of last and higher fees: the same call, or one that only frees the nonce.
func (s *Settler) replace(
	ctx context.Context, l *lane, last *settlement.Transaction, tx *types.Transaction, free bool,
) (settlement.Transaction, error) {
	st, err := s.state(ctx, l)
	if err != nil {
		return settlement.Transaction{}, err
	}
	f, err := fees{max: tx.GasFeeCap(), tip: tx.GasTipCap()}.raised(fees{st.maxFee, st.tip}, s.set().MaxFeePerGas)
	if err != nil {
		return settlement.Transaction{}, err
	}
	c, payments := call{to: *tx.To(), data: tx.Data(), gas: tx.Gas()}, last.Payments
	if free {
		c, payments = call{to: l.address, gas: s.set().GasLimit}, nil
	}
	limit := s.set().SpendPerHour
	if free {
		limit = nil // it costs little, and all behind it wait
	}
	worst := new(big.Int).Mul(f.max, new(big.Int).SetUint64(c.gas))
	if err := s.costs.reserve(s.now(), placeOf(last), worst, limit); err != nil {
		return settlement.Transaction{}, err
	}
	next, err := s.sign(ctx, l, c, last.Nonce, f)
	if err != nil {
		return settlement.Transaction{}, err
	}
	next.Payments = payments
	return next, s.journal.Record(ctx, next)
}
