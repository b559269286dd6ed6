package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
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
// Who is lent to serves under the hold of its claim, and has lost its slots when that has run out: Apply lets nothing out then
// that is not paid (see Payment.OnCredit).
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
	// creditGrace is how long a hold must be over for its slots to be free: the store's clock may be ahead of what callers know of it.
	creditGrace = 2 * time.Second
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
	since   time.Time // when the first slot was taken; zero: not yet
}

// Take lends p's amount: p, which is claimed with FlowDeferred meanwhile or afterwards, may then be served, if the loan Covers it.
// ErrCredit if so much is not left.
func (c *Credit) Take(ctx context.Context, s Creditor, p *Payment) (*Loan, error) {
	mine, everybody := c.pools(p.Payer)
	needed, neededOfAll := mine.need(&p.Amount), everybody.need(&p.Amount)
	if needed > mine.slots || neededOfAll > everybody.slots {
		return nil, fmt.Errorf("%w: the amount alone is more than the bound", ErrCredit)
	}
	b := &borrowing{Loan: Loan{store: s, payment: p.ID}, credit: c}
	done := make(chan error, 1)
	go func() { done <- b.take(ctx, everybody, creditProbes+neededOfAll, neededOfAll) }()
	err := b.take(ctx, mine, mine.slots, needed)
	if err = errors.Join(err, <-done); err != nil {
		return nil, errors.Join(err, b.Give(ctx))
	}
	return &b.Loan, nil
}

// Covers reports whether p, as it was claimed, has its slots: who takes too long to claim loses them.
func (l *Loan) Covers(p *Payment) bool {
	return p.ID == l.payment && len(l.taken) > 0 && p.CreatedAt.Sub(l.since) < unclaimedFor/2
}

// borrowing is one payment on its way through the slots of a pool.
type borrowing struct {
	Loan
	credit *Credit
	mu     sync.Mutex
}

// take takes need slots of a pool, beginning anywhere. As many as are needed are tried at once, so that a store writes them together.
func (b *borrowing) take(ctx context.Context, from pool, probes, need uint64) error {
	at := rand.Uint64N(from.slots) //nolint:gosec // any place will do
	crowded := false
	for left := min(probes, from.slots); left > 0; {
		n := min(need, left)
		var wg sync.WaitGroup
		got, errs := make([]bool, n), make([]error, n)
		for i := range n {
			wg.Go(func() { got[i], errs[i] = b.slot(ctx, b.credit.key(&from, (at+i)%from.slots), crowded) })
		}
		wg.Wait()
		at, left, crowded = (at+n)%from.slots, left-n, true
		for _, ok := range got {
			if ok {
				need--
			}
		}
		if err := errors.Join(errs...); err != nil || need == 0 {
			return err
		}
	}
	return ErrCredit
}

// slot takes one slot. look: it is likely to be taken, and to look costs less than to write.
func (b *borrowing) slot(ctx context.Context, key common.Hash, look bool) (got bool, err error) {
	over := ""
	if look {
		r, err := b.store.Reservation(ctx, key)
		if err == nil {
			free, err := b.over(ctx, &r)
			if err != nil || !free {
				return false, err
			}
			over = r.Payment
		} else if !errors.Is(err, ErrNotFound) {
			return false, fmt.Errorf("taking credit: %w", err)
		}
	}
	for range slotTries {
		r, err := b.store.Reserve(ctx, Reservation{Key: key, Payment: b.payment}, over, creditTTL)
		switch {
		case err == nil:
			b.took(key, r.CreatedAt)
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

func (b *borrowing) took(key common.Hash, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = append(b.taken, key)
	if b.since.IsZero() || at.Before(b.since) {
		b.since = at
	}
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
	return !p.OnCredit(b.store.Now().Add(-creditGrace)) && !p.Owes(), nil
}

// Give gives back what was taken, of a payment that was settled or came to nothing.
func (l *Loan) Give(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, len(l.taken))
	for i, key := range l.taken {
		wg.Go(func() {
			// There is no other end of a reservation than its time.
			_, err := l.store.Reserve(ctx, Reservation{Key: key, Payment: freed}, l.payment, time.Microsecond)
			if err != nil && !errors.Is(err, ErrExists) {
				errs[i] = fmt.Errorf("giving credit back: %w", err)
			}
		})
	}
	wg.Wait()
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
