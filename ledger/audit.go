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
	BlockHash   common.Hash `json:"block_hash,omitzero"`
	PlanUntil   time.Time   `json:"plan_until,omitzero"`
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
		Payment: p.ID, Version: p.Version, At: p.UpdatedAt, Event: c.Event, Actor: c.Actor, Reason: c.Reason,
		Settlement: p.Settlement, Delivery: p.Delivery, Refund: p.Refund, Hold: p.Hold,
		Transaction: c.Transaction, Block: c.Block, BlockHash: c.BlockHash, PlanUntil: moment(c.PlanUntil),
		ServedBy: c.ServedBy, Previous: previous,
	}
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
// hash right and chained to the one before, and, replayed from the claim, exactly p: its facets, its hold, where its
// money moved, its reason and its times. Errors wrap ErrAudit.
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
	got := p.bare()
	for i, e := range trail {
		if err := Apply(&got, e.change(got.Hold.Fence), e.At); err != nil {
			return fmt.Errorf("%w: payment %s, entry %d: %w", ErrAudit, p.ID, i+1, err)
		}
		if got.Settlement != e.Settlement || got.Delivery != e.Delivery || got.Refund != e.Refund ||
			got.Hold.Fence != e.Hold.Fence || !got.Hold.Until.Equal(e.Hold.Until) {
			return fmt.Errorf("%w: payment %s, entry %d does not follow from the ones before", ErrAudit, p.ID, i+1)
		}
	}
	if got.utc() != p.utc() {
		return fmt.Errorf("%w: payment %s is not where its trail leads", ErrAudit, p.ID)
	}
	return nil
}

// change is the step that the entry tells of, for a payment whose hold has the fence fence.
func (e *Entry) change(fence uint64) Change {
	c := Change{
		Event: e.Event, Actor: e.Actor, Reason: e.Reason, Fence: fence, Transaction: e.Transaction,
		Block: e.Block, BlockHash: e.BlockHash, PlanUntil: e.PlanUntil, ServedBy: e.ServedBy,
	}
	// A claim under no hold of its own leaves the challenge's as it was.
	if !e.Hold.Until.IsZero() && (e.Event != EventClaim || e.Hold.Fence > fence) {
		c.Hold = e.Hold.Until.Sub(e.At)
	}
	return c
}

// utc is the payment with its times in one form, so that two of them can be compared by ==.
func (p *Payment) utc() Payment {
	q := *p
	for _, t := range []*time.Time{
		&q.Hold.Until, &q.PlanUntil, &q.CreatedAt, &q.UpdatedAt, &q.SettledAt, &q.DeliveredAt,
	} {
		*t = t.UTC()
	}
	return q
}
