package paywall

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// What is used up, the requests of a pass for instance, is counted in the ledger. So that not every request needs the ledger, each
// process draws some units ahead: a lease. What it does not use it gives back; what it holds when it is killed is used up.
const (
	// mostLease is for how many requests units are drawn ahead, at most, and leaseShare which part of what is left: so the last
	// ones are drawn one by one, wherever they are wanted.
	mostLease  = 1024
	leaseShare = 16
	// A lease grows while it lasts for less than leaseFast, and shrinks when it lasts longer than leaseSlow.
	leaseFast = 250 * time.Millisecond
	leaseSlow = time.Second
	// leaseLook is how often a lease is looked at: what was not wanted since the last time, twice as much as was, goes back.
	leaseLook = 500 * time.Millisecond
	// leasePatience is how long a request waits for what others may give back, where nothing is left; it asks every leasePause.
	leasePatience = 3 * leaseLook
	leasePause    = 50 * time.Millisecond
	// An allowance of which nothing came back in that time is asked for again after leaseDry, then after twice as long, and so on
	// up to mostDry; requests are refused meanwhile.
	leaseDry = time.Second
	mostDry  = 8 * time.Second
	// leaseKept is how long a lease with nothing in it is remembered.
	leaseKept = 10 * time.Second
	// returners is how many leases are given back at once.
	returners = 32
	// closeTimeout bounds how long giving back everything may take when an engine is closed.
	closeTimeout = 5 * time.Second
)

// errUsedUp: so many units are not left.
var errUsedUp = errors.New("paywall: it is used up")

// due is what one request takes of an allowance.
type due struct {
	key          common.Hash
	units, limit uint256.Int
	until        time.Time
	policy       string // as RateLimit calls it
	unit         string // of what is counted; empty: requests
	window       time.Duration
	renews       bool // when its time is over, it begins anew, for as long as window
}

// standing is how an allowance stands, as far as this process knows: others may have drawn since.
type standing struct {
	limit, left uint256.Int
	created     time.Time
	until       time.Time
}

// leaser holds the leases of a process. It is safe for concurrent use.
type leaser struct {
	store ledger.Allowances
	log   func() *slog.Logger

	mu     sync.Mutex
	held   map[common.Hash]*lease
	closed bool
	fills  sync.WaitGroup
}

// lease is what a process holds of one allowance.
type lease struct {
	key            common.Hash
	created, until time.Time
	limit          uint256.Int
	have           uint256.Int // drawn, and not used
	left           uint256.Int // in the ledger, after the last draw
	size           uint64      // of the next lease, in requests
	waiting        uint64      // requests that wait for units
	fill           *fill       // the draw under way; nil: none is
	filled         time.Time
	next           time.Time // no draw before

	spent   uint256.Int // since looked
	looked  time.Time
	touched time.Time

	dry    time.Time // until when nobody asks for dryOf units or more
	dryFor time.Duration
	dryOf  uint256.Int
}

// fill is one draw.
type fill struct {
	done  chan struct{}
	least uint256.Int
	none  bool
	err   error
}

func newLeaser(store ledger.Allowances, log func() *slog.Logger) *leaser {
	return &leaser{store: store, log: log, held: make(map[common.Hash]*lease)}
}

// of finds the lease for d. The caller holds the lock.
func (l *leaser) of(d *due, now time.Time) *lease {
	e := l.held[d.key]
	if e == nil {
		e = &lease{key: d.key, limit: d.limit, left: d.limit, until: d.until, size: 1, looked: now, touched: now}
		l.held[d.key] = e
	}
	if d.renews {
		e.renew(d)
	}
	return e
}

// renew forgets what was drawn of an allowance whose time was over, by the ledger's clock, when d was made: what is taken now must be drawn
// of the next one.
func (e *lease) renew(d *due) {
	if asked := d.until.Add(-d.window); e.fill != nil || e.created.IsZero() || e.until.After(asked) {
		return
	}
	e.have.Clear()
	e.spent.Clear()
	e.created, e.until, e.limit, e.left = time.Time{}, d.until, d.limit, d.limit
	e.dry, e.dryFor = time.Time{}, 0
}

// take takes what is due. Where nothing is left it waits for patience, in case others give something back. Errors: errUsedUp, the
// context's, and what the ledger says.
func (l *leaser) take(ctx context.Context, d *due, patience time.Duration) (standing, error) {
	var deadline time.Time
	for {
		l.mu.Lock()
		now := time.Now()
		if l.closed {
			l.mu.Unlock()
			return standing{}, ledger.ErrClosed
		}
		e := l.of(d, now)
		f, over := e.ask(d, now, deadline)
		switch {
		case over == nil:
			l.ahead(e, d, now)
			fallthrough
		case errors.Is(over, errUsedUp):
			s := e.standing()
			l.mu.Unlock()
			return s, over
		}
		if f == nil && !now.Before(e.next) {
			f = l.refill(e, d)
		}
		e.waiting++
		pause := max(e.next.Sub(now), time.Millisecond)
		l.mu.Unlock()
		err := await(ctx, f, pause)
		l.mu.Lock()
		e.waiting--
		if err == nil && f != nil && f.none && !e.short(d).Lt(&f.least) && deadline.IsZero() {
			if deadline = time.Now(); e.dryFor == 0 {
				deadline = deadline.Add(patience)
			}
		}
		l.mu.Unlock()
		if err != nil {
			return standing{}, err
		}
	}
}

// errWait: there is nothing to say yet.
var errWait = errors.New("paywall: units are being drawn")

// ask takes what is due if it is there; else it says whether to wait, and for which draw, or that all is used up.
func (e *lease) ask(d *due, now, deadline time.Time) (*fill, error) {
	e.touched = now
	switch {
	case !e.have.Lt(&d.units):
		e.have.Sub(&e.have, &d.units)
		e.spent.Add(&e.spent, &d.units)
		return nil, nil
	case now.Before(e.dry) && !d.units.Lt(&e.dryOf):
		return nil, errUsedUp
	case !deadline.IsZero() && !now.Before(deadline) && e.fill == nil:
		e.dryFor = min(max(2*e.dryFor, leaseDry), mostDry)
		e.dry, e.dryOf = now.Add(e.dryFor), d.units
		return nil, errUsedUp
	}
	return e.fill, errWait
}

// short is how much is missing of what is due.
func (e *lease) short(d *due) *uint256.Int {
	n := new(uint256.Int)
	if e.have.Lt(&d.units) {
		n.Sub(&d.units, &e.have)
	}
	return n
}

func (e *lease) standing() standing {
	s := standing{limit: e.limit, created: e.created, until: e.until}
	s.left.Add(&e.have, &e.left)
	return s
}

// await waits for a draw, or for a moment if there is none.
func await(ctx context.Context, f *fill, pause time.Duration) error {
	if f != nil {
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ahead draws before the lease is empty, so that nobody need wait. The caller holds the lock.
func (l *leaser) ahead(e *lease, d *due, now time.Time) {
	if e.fill != nil || e.left.IsZero() || now.Before(e.next) {
		return
	}
	low := e.enough(d)
	low.Rsh(low, 1)
	if e.have.Lt(low) && e.left.Gt(&d.units) {
		l.refill(e, d)
	}
}

// enough is how much the lease should hold after the next draw: for so many requests like d, and no more than its share of what
// is left, but for one.
func (e *lease) enough(d *due) *uint256.Int {
	n := new(uint256.Int).Mul(&d.units, uint256.NewInt(max(e.size, min(e.waiting+1, mostLease))))
	if share := new(uint256.Int).Div(&e.left, uint256.NewInt(leaseShare)); share.Lt(n) {
		n = share
	}
	if n.Lt(&d.units) {
		n.Set(&d.units)
	}
	return n
}

// refill draws what is missing of d and, if there is enough, what the next requests will want. The draw goes on though whoever
// wanted it has left. The caller holds the lock.
func (l *leaser) refill(e *lease, d *due) *fill {
	f := &fill{done: make(chan struct{}), least: *e.short(d)}
	if f.least.IsZero() { // ahead
		f.least = d.units
	}
	want := e.enough(d)
	if want.Lt(&e.have) {
		want.Clear()
	} else {
		want.Sub(want, &e.have)
	}
	if want.Lt(&f.least) {
		want.Set(&f.least)
	}
	draw := ledger.Draw{Key: d.key, Least: f.least, Want: *want, Limit: d.limit, Until: d.until}
	e.fill = f
	l.fills.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		defer cancel()
		n, a, err := l.store.Draw(ctx, draw)
		l.mu.Lock()
		defer l.mu.Unlock()
		e.drawn(f, &n, &a, err, time.Now())
		close(f.done)
	})
	return f
}

// drawn notes what came of a draw. Of one that failed it is not known whether units were drawn: then they are used up.
func (e *lease) drawn(f *fill, n *uint256.Int, a *ledger.Allowance, err error, now time.Time) {
	e.fill, f.err = nil, err
	if err != nil {
		e.next = now.Add(leasePause)
		return
	}
	if !a.CreatedAt.Equal(e.created) { // it began anew, or with this draw
		e.created = a.CreatedAt
		e.have.Clear()
	}
	e.left = a.Left()
	if !a.ExpiresAt.IsZero() {
		e.limit, e.until = a.Limit, a.ExpiresAt
	}
	if f.none = n.IsZero(); f.none {
		e.next = now.Add(leasePause)
		return
	}
	e.have.Add(&e.have, n)
	e.dry, e.dryFor = time.Time{}, 0
	switch lasted := now.Sub(e.filled); {
	case lasted < leaseFast:
		e.size = min(4*e.size, mostLease)
	case lasted > leaseSlow:
		e.size = max(e.size/2, 1)
	}
	e.filled = now
}
