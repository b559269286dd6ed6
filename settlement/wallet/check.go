package wallet

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// checkTimeout bounds a simulation, which may serve several requests and hangs on none of them.
const checkTimeout = 20 * time.Second

// transfer is the call that executes an authorization, by the overload that its signature needs.
type transfer struct {
	data []byte
	// proven: the payer's own key made the signature. Otherwise a contract wallet may accept it.
	proven bool
	// key tells this very call from all others, one with another signature among them.
	key [32]byte
}

func (s *Settler) transfer(in settlement.Intent) transfer {
	a := in.Authorization
	var t transfer
	if t.proven = in.Proven; !t.proven {
		signer, err := x402.Recover(a.Digest(s.separator), in.Signature)
		t.proven = err == nil && signer == a.From
	}
	if t.proven {
		t.data = a.TransferCalldata(in.Signature)
	} else {
		t.data = a.TransferCalldataBytes(in.Signature)
	}
	t.key = sha256.Sum256(t.data)
	return t
}

// Check simulates the transfer, unless the queue is full, or as much was spent on gas as may be: then nothing is to be claimed either. Identical checks at the same time share one simulation.
func (s *Settler) Check(ctx context.Context, in settlement.Intent) (head uint64, err error) {
	done, err := s.enter()
	if err != nil {
		return 0, err
	}
	defer done()
	if err := s.fits(in); err != nil {
		return 0, err
	}
	if err := s.queue.room(in.Authorization.From); err != nil {
		return 0, err
	}
	if err := s.solvent(); err != nil {
		return 0, err
	}
	t := s.transfer(in)
	v, err := s.flights.share(ctx, t.key, func(ctx context.Context) (verdict, error) {
		v, err := s.simulate(ctx, in, t)
		if err == nil {
			s.recent.put(t.key, v)
		}
		return v, err
	}, s.wg.Go)
	return v.head, err
}

// flights lets identical checks share one.
type flights struct {
	mu    sync.Mutex
	byKey map[[32]byte]*flight
}

type flight struct {
	done    chan struct{}
	verdict verdict
	err     error
}

// share gives the result of check, run once for all who come while it runs. It is detached from who asked
// first: that one may leave.
func (f *flights) share(
	ctx context.Context, key [32]byte, check func(context.Context) (verdict, error), run func(func()),
) (verdict, error) {
	f.mu.Lock()
	fl := f.byKey[key]
	if fl == nil {
		fl = &flight{done: make(chan struct{})}
		f.byKey[key] = fl
		run(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
			defer cancel()
			fl.verdict, fl.err = check(ctx)
			f.mu.Lock()
			delete(f.byKey, key)
			f.mu.Unlock()
			close(fl.done)
		})
	}
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.verdict, fl.err
	case <-ctx.Done():
		return verdict{}, unavailable(ctx.Err())
	}
}
