package ledger

import (
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Create is what Store.Claim stores: p as claimed, or imported, at the time now, in its version 1, and the first entry of
// its trail. Only what the payment is for is taken from p; its facets, hold and times are made here.
func Create(p Payment, c Change, now time.Time) (Payment, Entry, error) {
	if shard, ok := ShardOf(p.ID); !ok || shard != Shard(p.Payer) {
		return Payment{}, Entry{}, fmt.Errorf("%w: %q is no id for a payment of this payer", ErrTransition, p.ID)
	}
	p = p.bare()
	if c.Event != EventImport {
		c.Event = EventClaim
	}
	if err := Apply(&p, c, now); err != nil {
		return Payment{}, Entry{}, err
	}
	e := NewEntry(&p, c, common.Hash{})
	return p, e, nil
}

// Advance is what Store.Update stores: p after the changes, in order and all or none, and an entry for each.
// previous is the hash of the last entry of p's trail.
func Advance(p Payment, previous common.Hash, now time.Time, changes ...Change) (Payment, []Entry, error) {
	for _, c := range changes {
		// Settling promises a stored transaction, so only Send leads there.
		if c.Event == EventSend {
			return Payment{}, nil, fmt.Errorf("%w: %s without a transaction, of payment %s", ErrTransition, c.Event, p.ID)
		}
	}
	return advance(p, previous, now, changes...)
}

// Send is what Store.Record stores of each payment of the transaction t: p as settling, and the entry for it.
func Send(p Payment, previous common.Hash, now time.Time, t *Transaction, actor string) (Payment, Entry, error) {
	p, entries, err := advance(p, previous, now, Change{Event: EventSend, Actor: actor, Transaction: t.Hash})
	if err != nil {
		return Payment{}, Entry{}, err
	}
	return p, entries[0], nil
}

func advance(p Payment, previous common.Hash, now time.Time, changes ...Change) (Payment, []Entry, error) {
	entries := make([]Entry, 0, len(changes))
	for _, c := range changes {
		if err := Apply(&p, c, now); err != nil {
			return Payment{}, nil, err
		}
		e := NewEntry(&p, c, previous)
		previous = e.Hash
		entries = append(entries, e)
	}
	return p, entries, nil
}
