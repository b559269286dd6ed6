package paywall

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// How what was drawn ahead goes back to the ledger.

// giveBack is for units that were taken and not used after all.
func (l *leaser) giveBack(d *due, s *standing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	now := time.Now()
	e := l.of(d, now)
	if e.created.IsZero() { // it was forgotten meanwhile
		e.created, e.until, e.limit = s.created, s.until, s.limit
		e.left.Clear()
	}
	if !e.created.Equal(s.created) {
		return
	}
	e.have.Add(&e.have, &d.units)
	e.dry, e.dryFor, e.touched = time.Time{}, 0, now
}

// surplus is what goes back of a lease.
type surplus struct {
	key     common.Hash
	created time.Time
	units   uint256.Int
}

// look gives back what is not wanted, and forgets leases with nothing in them.
func (l *leaser) look(ctx context.Context) {
	l.mu.Lock()
	now := time.Now()
	var list []surplus
	for key, e := range l.held {
		if now.Sub(e.looked) >= leaseLook {
			if s := e.trim(now); !s.units.IsZero() {
				list = append(list, s)
			}
		}
		if e.have.IsZero() && e.fill == nil && e.waiting == 0 && now.Sub(e.touched) > leaseKept && !now.Before(e.dry) {
			delete(l.held, key)
		}
	}
	l.mu.Unlock()
	l.returnAll(ctx, list)
}

// trim takes out of a lease what is more than twice as much as was used since the last look.
func (e *lease) trim(now time.Time) surplus {
	keep := new(uint256.Int).Lsh(&e.spent, 1)
	e.spent.Clear()
	e.looked = now
	s := surplus{key: e.key, created: e.created}
	if e.have.Gt(keep) && e.waiting == 0 {
		s.units.Sub(&e.have, keep)
		e.have = *keep
		e.left.Add(&e.left, &s.units)
	}
	return s
}

// returnAll gives units back to the ledger. Of what fails it is not always known whether it was done: then it is used up.
func (l *leaser) returnAll(ctx context.Context, list []surplus) {
	if len(list) == 0 {
		return
	}
	next := make(chan surplus)
	var wg sync.WaitGroup
	for range min(returners, len(list)) {
		wg.Go(func() {
			for s := range next {
				if err := l.store.Return(ctx, s.key, s.created, s.units); err != nil {
					l.failed(&s, err)
				}
			}
		})
	}
	for _, s := range list {
		next <- s
	}
	close(next)
	wg.Wait()
}

// failed keeps what was certainly not given back.
func (l *leaser) failed(s *surplus, err error) {
	l.log().Warn("units of a plan could not be given back", slog.String("units", s.units.Dec()), slog.Any("error", err))
	if uncertain(err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.held[s.key]; e != nil && e.created.Equal(s.created) {
		e.have.Add(&e.have, &s.units)
	}
}

// run looks after the leases until ctx ends.
func (l *leaser) run(ctx context.Context) {
	t := time.NewTicker(leaseLook / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
			l.look(bounded)
			cancel()
		}
	}
}

// close gives everything back. Nothing can be taken any more.
func (l *leaser) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.fills.Wait()
	l.mu.Lock()
	var list []surplus
	for _, e := range l.held {
		if !e.have.IsZero() {
			list = append(list, surplus{e.key, e.created, e.have})
		}
	}
	clear(l.held)
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	l.returnAll(ctx, list)
}
