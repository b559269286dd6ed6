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

// unit is the size of a slot.
func (c *Credit) unit() *uint256.Int {
	unit := new(uint256.Int).Div(&c.PerPayer, uint256.NewInt(payerSlots))
	// Not so small that the total has more slots than can be told apart.
	least := new(uint256.Int).Div(&c.Total, uint256.NewInt(mostSlots))
	if unit.Lt(least) {
		unit = least
	}
	if unit.IsZero() {
		unit.SetOne()
	}
	return unit
}

// slots is how many slots amount fills, or, rounded down, how many a bound has.
func slots(amount, unit *uint256.Int, up bool) uint64 {
	n := new(uint256.Int)
	rest := new(uint256.Int)
	n.DivMod(amount, unit, rest)
	if up && !rest.IsZero() {
		n.AddUint64(n, 1)
	}
	if !n.IsUint64() || n.Uint64() > mostSlots {
		return mostSlots + 1
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
	unit := c.unit()
	need := slots(&p.Amount, unit, true)
	of, total := min(slots(&c.PerPayer, unit, false), mostSlots), min(slots(&c.Total, unit, false), mostSlots)
	if need == 0 || need > of || need > total {
		return nil, fmt.Errorf("%w: the amount alone is more than the bound", ErrCredit)
	}
	own := borrowing{Loan: Loan{store: s, payment: p.ID}, credit: c, unit: unit}
	all := own
	done := make(chan error, 1)
	go func() { done <- all.take(ctx, common.Address{}, total, creditProbes+need, need) }()
	err := own.take(ctx, p.Payer, of, of, need)
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
	unit   *uint256.Int
}

// take takes need of n slots of a pool, beginning anywhere.
func (b *borrowing) take(ctx context.Context, pool common.Address, n, probes, need uint64) error {
	at := rand.Uint64N(n) //nolint:gosec // any place will do
	for range min(probes, n) {
		got, err := b.slot(ctx, b.credit.key(pool, b.unit, at))
		if err != nil {
			return err
		}
		if got {
			if need--; need == 0 {
				return nil
			}
		}
		at = (at + 1) % n
	}
	return ErrCredit
}

func (b *borrowing) slot(ctx context.Context, key common.Hash) (got bool, err error) {
	over := ""
	for range 2 {
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

// key names the slot number n of a pool: a payer's, or, for the zero address, the total's. Where the bounds lead to another size,
// the slots are others.
func (c *Credit) key(pool common.Address, unit *uint256.Int, n uint64) common.Hash {
	h := sha256.New()
	h.Write([]byte("caddy-x402 credit"))
	var b []byte
	b = binary.BigEndian.AppendUint64(b, c.ChainID)
	b = append(append(b, c.Asset[:]...), pool[:]...)
	size := unit.Bytes32()
	b = binary.BigEndian.AppendUint64(append(b, size[:]...), n)
	h.Write(b)
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
