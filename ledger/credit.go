package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// ErrCredit: so much credit is not left.
var ErrCredit = errors.New("ledger: there is not so much credit left")

// Credit bounds what is served and not paid (FlowDeferred), for each payer and in total, over all instances that share the
// store. Both bounds are cut into slots of one size, and a slot is a [Reservation]: of all who want it, on any number of instances,
// one has it. Who lends takes as many slots of the payer and of the total as the amount fills, so what is outstanding never
// exceeds a bound, and may stay below it by less than a slot for each payment.
//
// A slot is held as long as its payment is on its way, and, if that was served and did not come through, until it is made
// good or creditTTL is over: so no more than the total is lost in that time. A slot whose payment needs it no more is free for whoever
// finds it, so nobody need give anything back, and a crash lends nothing for ever.
type Credit struct {
	// ChainID and Asset are of what is lent: each has bounds of its own.
	ChainID uint64
	Asset   common.Address
	// PerPayer and Total are the bounds, in atomic units of the asset. A change of them takes hold for what is lent from then on.
	PerPayer, Total uint256.Int
}

const (
	// payerSlots are how many slots the bound of a payer has, and mostSlots how many the total has at most.
	payerSlots = 32
	mostSlots  = 1 << 16
	// creditProbes is how many slots of the total are tried. Where more are taken in a row, next to nothing is left.
	creditProbes = 96
	// creditTTL is how long slots are held for what did not come through.
	creditTTL = 24 * time.Hour
	// slotTries is how often a slot is tried that is given back, or taken over, at the same moment.
	slotTries = 4
	// unclaimedFor is how long a slot may be held for a payment that is not claimed yet.
	unclaimedFor = time.Minute
	// freed is what a slot is held for that was given back.
	freed = "pay_none"
)

// Creditor is what Credit needs of a Store.
type Creditor interface {
	Payments
	Reservations
	Now() time.Time
}

// pool is one of the two bounds, cut into slots.
type pool struct {
	of    common.Address // whose; zero: the total
	bound *uint256.Int
	slots uint64
}

// pools gives the bound of a payer and the total. Their slots are of about one size.
func (c *Credit) pools(payer common.Address) (own, total pool) {
	own = pool{payer, &c.PerPayer, payerSlots}
	total = pool{common.Address{}, &c.Total, mostSlots}
	if c.PerPayer.IsZero() {
		return own, total
	}
	n, overflow := new(uint256.Int).MulDivOverflow(&c.Total, uint256.NewInt(payerSlots), &c.PerPayer)
	if !overflow && n.LtUint64(mostSlots) {
		total.slots = max(n.Uint64(), 1)
	}
	return own, total
}

// need is how many slots amount fills; more than there are, if it is more than the bound. What fills all slots together is the bound.
func (p *pool) need(amount *uint256.Int) uint64 {
	if amount.Gt(p.bound) || amount.IsZero() {
		return p.slots + 1
	}
	slots := uint256.NewInt(p.slots)
	n, _ := new(uint256.Int).MulDivOverflow(amount, slots, p.bound) // no more than slots
	if rest := new(uint256.Int).MulMod(amount, slots, p.bound); !rest.IsZero() {
		n.AddUint64(n, 1)
	}
	return n.Uint64()
}

// Loan is what Take took. It need not be given back, but whoever comes next finds it faster if it was.
type Loan struct {
	store   Creditor
	payment string
	taken   []common.Hash
}

// Take lends p's amount: p, which is not claimed yet, may then be claimed with FlowDeferred, within a minute. ErrCredit if so much is
// not left.
func (c *Credit) Take(ctx context.Context, s Creditor, p *Payment) (*Loan, error) {
	mine, everybody := c.pools(p.Payer)
	needed, neededOfAll := mine.need(&p.Amount), everybody.need(&p.Amount)
	if needed > mine.slots || neededOfAll > everybody.slots {
		return nil, fmt.Errorf("%w: the amount alone is more than the bound", ErrCredit)
	}
	own := borrowing{Loan: Loan{store: s, payment: p.ID}, credit: c}
	all := own
	done := make(chan error, 1)
	go func() { done <- all.take(ctx, everybody, creditProbes+neededOfAll, neededOfAll) }()
	err := own.take(ctx, mine, mine.slots, needed)
	err = errors.Join(err, <-done)
	own.taken = append(own.taken, all.taken...)
	if err != nil {
		return nil, errors.Join(err, own.Give(ctx))
	}
	return &own.Loan, nil
}

// borrowing is one payment on its way through the slots of a pool.
type borrowing struct {
	Loan
	credit *Credit
}

// take takes need slots of a pool, beginning anywhere.
func (b *borrowing) take(ctx context.Context, from pool, probes, need uint64) error {
	at := rand.Uint64N(from.slots) //nolint:gosec // any place will do
	for range min(probes, from.slots) {
		got, err := b.slot(ctx, b.credit.key(&from, at))
		if err != nil {
			return err
		}
		if got {
			if need--; need == 0 {
				return nil
			}
		}
		at = (at + 1) % from.slots
	}
	return ErrCredit
}

func (b *borrowing) slot(ctx context.Context, key common.Hash) (got bool, err error) {
	over := ""
	for range slotTries {
		r, err := b.store.Reserve(ctx, Reservation{Key: key, Payment: b.payment}, over, creditTTL)
		switch {
		case err == nil:
			b.taken = append(b.taken, key)
			return true, nil
		case !errors.Is(err, ErrExists):
			return false, fmt.Errorf("taking credit: %w", err)
		case r.Payment == b.payment:
			return false, nil // it has this one
		}
		free, err := b.over(ctx, &r)
		if err != nil || !free {
			return false, err
		}
		over = r.Payment
	}
	return false, nil
}

// over reports whether the payment that a slot is held for needs it no more.
func (b *borrowing) over(ctx context.Context, r *Reservation) (bool, error) {
	if r.Payment == freed {
		return true, nil
	}
	p, err := b.store.Payment(ctx, r.Payment)
	if errors.Is(err, ErrNotFound) {
		return b.store.Now().Sub(r.CreatedAt) > unclaimedFor, nil
	}
	if err != nil {
		return false, fmt.Errorf("taking credit: %w", err)
	}
	return !p.OnCredit(b.store.Now()) && !p.Owes(), nil
}

// Give gives back what was taken, of a payment that was settled or came to nothing.
func (l *Loan) Give(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, key := range l.taken {
		// There is no other end of a reservation than its time.
		_, err := l.store.Reserve(ctx, Reservation{Key: key, Payment: freed}, l.payment, time.Microsecond)
		if err != nil && !errors.Is(err, ErrExists) {
			errs = append(errs, fmt.Errorf("giving credit back: %w", err))
		}
	}
	l.taken = nil
	return errors.Join(errs...)
}

// key names the slot number n of a pool. Another bound has other slots.
func (c *Credit) key(p *pool, n uint64) common.Hash {
	h := sha256.New()
	h.Write([]byte("caddy-x402 credit"))
	bound := p.bound.Bytes32()
	b := binary.BigEndian.AppendUint64(nil, c.ChainID)
	b = append(append(b, c.Asset[:]...), p.of[:]...)
	b = binary.BigEndian.AppendUint64(append(b, bound[:]...), p.slots)
	h.Write(binary.BigEndian.AppendUint64(b, n))
	return common.Hash(h.Sum(nil))
}

// OnCredit reports whether p is, or is about to be, served without being paid.
func (p *Payment) OnCredit(now time.Time) bool {
	if p.Flow != FlowDeferred || p.Settlement != Claimed && p.Settlement != Settling {
		return false
	}
	return p.Delivery == Delivered || p.Held(now)
}

// Owes reports whether p was served, and its payment has failed: its payer owes it until it is made good.
func (p *Payment) Owes() bool {
	return p.Delivery == Delivered && (p.Settlement == Failed || p.Settlement == Void) && p.ServedBy == ""
}
