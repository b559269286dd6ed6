package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// Allowances count what may be used up: the requests of a pass, prepaid credit, what is free in a window of time. Whoever uses
// something draws it first, so a crash uses up what was drawn and not used, and never lets anybody use more than there is.
type Allowances interface {
	// Draw takes d.Want units of an allowance, or as many as are left if that is d.Least at least, or none. It gives how many, and the
	// allowance as it then is. One that is not there, or has expired, begins anew with d.Limit units until d.Until; of one that is
	// there, its own limit and end count, whatever d says: what was sold stays what was sold. Where d.Until is over by the store's
	// clock nothing is drawn, and the allowance is zero if there is none.
	Draw(ctx context.Context, d Draw) (uint256.Int, Allowance, error)
	// Return gives back n units that were drawn of the allowance that was made at created. One that is gone or was begun anew since
	// needs nothing back, which is no error. ErrTransition if more would be given back than was drawn. Whoever is told that it is not
	// known whether units were given back must not give them back again.
	Return(ctx context.Context, key common.Hash, created time.Time, n uint256.Int) error
	// Allowance reads by key; ErrNotFound if there is none, or it has expired.
	Allowance(ctx context.Context, key common.Hash) (Allowance, error)
}

// Allowance is how much of something there is, and was drawn.
type Allowance struct {
	// Key is a hash of what is counted, and for whom.
	Key common.Hash `json:"key"`
	// Limit is how many units there are in all, Used how many of them were drawn and not given back.
	Limit     uint256.Int `json:"limit"`
	Used      uint256.Int `json:"used"`
	CreatedAt time.Time   `json:"created_at"`
	ExpiresAt time.Time   `json:"expires_at"`
}

// Draw is what somebody wants of an allowance, and what that is if nobody has drawn of it before.
type Draw struct {
	Key         common.Hash
	Least, Want uint256.Int // units
	Limit       uint256.Int
	Until       time.Time
}

// latestEnd is the last moment that every store can tell as an end.
var latestEnd = time.Date(2250, 1, 1, 0, 0, 0, 0, time.UTC)

// Left is how many units were not drawn.
func (a *Allowance) Left() uint256.Int {
	var left uint256.Int
	if a.Used.Lt(&a.Limit) {
		left.Sub(&a.Limit, &a.Used)
	}
	return left
}

// Live reports whether a counts at the time now.
func (a *Allowance) Live(now time.Time) bool { return a.ExpiresAt.After(now) }

// Take is what Allowances.Draw stores: next, if anything was drawn. had is what is there, zero if nothing is.
func (d *Draw) Take(had Allowance, now time.Time) (next Allowance, drawn uint256.Int) {
	now = now.Truncate(time.Microsecond)
	next = had
	if !had.Live(now) {
		until := d.Until.UTC().Truncate(time.Microsecond)
		if until.After(latestEnd) {
			until = latestEnd
		}
		if !until.After(now) {
			return Allowance{}, drawn
		}
		next = Allowance{Key: d.Key, Limit: d.Limit, CreatedAt: now, ExpiresAt: until}
	}
	left := next.Left()
	if left.Lt(&d.Least) {
		return next, drawn
	}
	drawn = d.Want
	if drawn.Lt(&d.Least) {
		drawn = d.Least
	}
	if left.Lt(&drawn) {
		drawn = left
	}
	next.Used.Add(&next.Used, &drawn)
	return next, drawn
}

// errReturned: more was given back than was drawn.
var errReturned = errors.New("ledger: more units were given back than were drawn")

// GiveBack is what Allowances.Return stores: next, if changed.
func (a *Allowance) GiveBack(created time.Time, n uint256.Int, now time.Time) (next Allowance, changed bool, err error) {
	switch {
	case !a.Live(now) || !a.CreatedAt.Equal(created) || n.IsZero():
		return *a, false, nil
	case a.Used.Lt(&n):
		return *a, false, fmt.Errorf("%w: %w", ErrTransition, errReturned)
	}
	next = *a
	next.Used.Sub(&a.Used, &n)
	return next, true, nil
}
