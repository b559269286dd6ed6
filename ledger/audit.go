package ledger

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Entry is one line of a payment's audit trail. Each carries the hash of the one before it, so that a
// changed, missing or reordered entry shows (invariant I5).
type Entry struct {
	Payment string    `json:"payment"`
	Version uint64    `json:"version"` // the payment's version after the step; 1 for the first
	At      time.Time `json:"at"`
	Event   Event     `json:"event"`
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason,omitempty"`
	// The facets and the hold after the step.
	Settlement  Settlement  `json:"settlement"`
	Delivery    Delivery    `json:"delivery"`
	Refund      Refund      `json:"refund"`
	Hold        Hold        `json:"hold"`
	Transaction common.Hash `json:"transaction,omitzero"`
	Block       uint64      `json:"block,omitempty"`
	ServedBy    string      `json:"served_by,omitempty"`
	// Subject is the SHA-256 of what never changes in the payment; in the first entry only.
	Subject common.Hash `json:"subject,omitzero"`
	// Previous is the Hash of the entry before; zero in the first.
	Previous common.Hash `json:"previous"`
	Hash     common.Hash `json:"hash"`
}

// ErrAudit: an audit trail does not hold together.
var ErrAudit = errors.New("ledger: the audit trail is broken")

// NewEntry is the entry for the step c that led to p, after the entry previous (its zero hash for the first).
func NewEntry(p *Payment, c Change, previous common.Hash) Entry {
	e := Entry{
		Payment: p.ID, Version: p.Version, At: p.UpdatedAt.UTC(), Event: c.Event, Actor: c.Actor, Reason: c.Reason,
		Settlement: p.Settlement, Delivery: p.Delivery, Refund: p.Refund, Hold: p.Hold,
		Transaction: c.Transaction, Block: c.Block, ServedBy: c.ServedBy, Previous: previous,
	}
	e.Hold.Until = e.Hold.Until.UTC()
	if previous == (common.Hash{}) {
		e.Subject = p.subject()
	}
	e.Hash = e.digest()
	return e
}

// digest hashes the entry without its own hash. JSON of a struct has a fixed order and, with times in
// UTC, one form.
func (e Entry) digest() common.Hash {
	e.Hash = common.Hash{}
	b, err := json.Marshal(e)
	if err != nil { // no field of Entry can fail
		return common.Hash{}
	}
	return sha256.Sum256(b)
}

// subject hashes what a payment was claimed for.
func (p *Payment) subject() common.Hash {
	b, err := json.Marshal([]any{
		p.ID, p.ChainID, p.Asset, p.Payer, p.Nonce, p.PayTo, p.Amount.Dec(),
		p.ValidBefore, p.HeaderHash, p.Binding, p.Flow, p.ClaimBlock,
	})
	if err != nil {
		return common.Hash{}
	}
	return sha256.Sum256(b)
}

// VerifyAudit checks that trail is whole and tells the story of p: versions without a gap, each
// hash right and chained to the one before, and facets that the events lead to. Errors wrap ErrAudit.
func VerifyAudit(p *Payment, trail []Entry) error {
	var previous common.Hash
	for i, e := range trail {
		switch {
		case e.Payment != p.ID, e.Version != uint64(i+1):
			return fmt.Errorf("%w: payment %s, entry %d is missing or out of order", ErrAudit, p.ID, i+1)
		case e.Previous != previous, e.Hash != e.digest():
			return fmt.Errorf("%w: payment %s, entry %d was changed", ErrAudit, p.ID, i+1)
		case i == 0 && e.Subject != p.subject():
			return fmt.Errorf("%w: payment %s is not what was claimed", ErrAudit, p.ID)
		}
		previous = e.Hash
	}
	return replay(p, trail)
}

func replay(p *Payment, trail []Entry) error {
	got := Payment{ID: p.ID, Flow: p.Flow}
	for i, e := range trail {
		c := Change{
			Event: e.Event, Actor: e.Actor, Reason: e.Reason, Fence: got.Hold.Fence,
			Transaction: e.Transaction, Block: e.Block, ServedBy: e.ServedBy,
		}
		if !e.Hold.Until.IsZero() {
			c.Hold = e.Hold.Until.Sub(e.At)
		}
		if err := Apply(&got, c, e.At); err != nil {
			return fmt.Errorf("%w: payment %s, entry %d: %w", ErrAudit, p.ID, i+1, err)
		}
		if got.Settlement != e.Settlement || got.Delivery != e.Delivery || got.Refund != e.Refund {
			return fmt.Errorf("%w: payment %s, entry %d does not follow from the ones before", ErrAudit, p.ID, i+1)
		}
	}
	if got.Settlement != p.Settlement || got.Delivery != p.Delivery || got.Refund != p.Refund || got.Version != p.Version {
		return fmt.Errorf("%w: payment %s is not where its trail leads", ErrAudit, p.ID)
	}
	return nil
}
