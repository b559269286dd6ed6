package settlementtest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// Journal is a settlement.Journal in memory, with the rules of the real one and, on demand, its troubles.
type Journal struct {
	mu     sync.Mutex
	nonces map[lane]uint64
	txs    []settlement.Transaction
	refuse map[string]bool
	crash  error
}

type lane struct {
	chainID uint64
	wallet  common.Address
}

var _ settlement.Journal = (*Journal)(nil)

// NewJournal makes an empty one.
func NewJournal() *Journal {
	return &Journal{nonces: make(map[lane]uint64), refuse: make(map[string]bool)}
}

// Crash makes Record, from now on, write the transaction down and then fail with err, as if the process had died
// there; nil ends that.
func (j *Journal) Crash(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.crash = err
}

// Refuse makes Record refuse a payment: it is no longer to be settled.
func (j *Journal) Refuse(payment string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refuse[payment] = true
}

// Keep gives a function that winds the journal back to what it is now, as a store does that is restored from a copy.
func (j *Journal) Keep() (restore func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	nonces, txs := maps.Clone(j.nonces), slices.Clone(j.txs)
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.nonces, j.txs = maps.Clone(nonces), slices.Clone(txs)
	}
}

// All lists every transaction, oldest first.
func (j *Journal) All() []settlement.Transaction {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.txs)
}

// Nonce is the next one.
func (j *Journal) Nonce(_ context.Context, chainID uint64, wallet common.Address) (uint64, bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, known := j.nonces[lane{chainID, wallet}]
	return n, known, nil
}

// Record stores t if it carries the next nonce, or replaces one of the same payments, or carries none. It is there already if
// somebody signed the same at the same time.
func (j *Journal) Record(_ context.Context, t settlement.Transaction) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range t.Payments {
		if j.refuse[p] {
			return settlement.ErrNotClaimed
		}
	}
	if slices.ContainsFunc(j.txs, func(o settlement.Transaction) bool { return o.Hash == t.Hash }) {
		return j.crash
	}
	at := lane{t.ChainID, t.Wallet}
	next, known := j.nonces[at]
	switch {
	case !known || t.Nonce == next:
		j.nonces[at] = t.Nonce + 1
	case !slices.ContainsFunc(j.txs, func(o settlement.Transaction) bool {
		return o.Nonce == t.Nonce && o.Wallet == t.Wallet && o.ChainID == t.ChainID &&
			(len(t.Payments) == 0 || slices.Equal(o.Payments, t.Payments))
	}):
		return settlement.ErrNonce
	}
	j.txs = append(j.txs, t)
	return j.crash
}

// Advance raises the next nonce.
func (j *Journal) Advance(_ context.Context, chainID uint64, wallet common.Address, to uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := lane{chainID, wallet}
	j.nonces[at] = max(j.nonces[at], to)
	return nil
}

// Transactions lists those of a payment, oldest first.
func (j *Journal) Transactions(_ context.Context, payment string) ([]settlement.Transaction, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []settlement.Transaction
	for _, t := range j.txs {
		if slices.Contains(t.Payments, payment) {
			found = append(found, t)
		}
	}
	return found, nil
}
