package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// ErrStalled: the disk took too long to answer a write whose caller would not wait any longer. Whether the
// change was made is not known.
var ErrStalled = errors.New("ledger/sqlite: the disk does not answer")

// patience is how long a caller whose context has ended is kept until the outcome of its write is known.
const patience = 10 * time.Second

// job is one caller's write.
type job struct {
	run func(*writer) error
	// taken is set by who decides the job's fate: the writer, that runs it, or the caller, that gives it up.
	taken atomic.Bool
	// lost: the transaction failed, so what run returned means nothing. Read after done.
	lost bool
	done chan error
}

// queue is where callers leave jobs for the one goroutine that writes.
type queue struct {
	mu     sync.Mutex
	jobs   []*job
	closed bool
	wake   chan struct{} // capacity 1: there may be jobs, or closed is set
	idle   chan struct{} // closed when the goroutine has ended
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), idle: make(chan struct{})}
}

// serve starts the goroutine. batch is called while there are jobs; close ends it, after the last job.
func (q *queue) serve(batch func()) {
	go func() {
		defer close(q.idle)
		for range q.wake {
			for q.waiting() > 0 {
				batch()
			}
			if q.over() {
				return
			}
		}
	}()
}

func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)
}

func (q *queue) over() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && len(q.jobs) == 0
}

// take hands out the oldest jobs that were not given up, at most limit. They must be answered.
func (q *queue) take(limit int) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	var got []*job
	n := 0
	for n < len(q.jobs) && len(got) < limit {
		if j := q.jobs[n]; j.taken.CompareAndSwap(false, true) {
			got = append(got, j)
		}
		n++
	}
	rest := copy(q.jobs, q.jobs[n:])
	clear(q.jobs[rest:])
	q.jobs = q.jobs[:rest]
	return got
}

func (q *queue) add(j *job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ledger.ErrClosed
	}
	q.jobs = append(q.jobs, j)
	q.signal()
	return nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.signal()
	q.mu.Unlock()
	<-q.idle
}

// write is transact, but for a copy that is under way: it lets nothing else be written.
func write[T any](ctx context.Context, s *Store, f func(*writer) (T, error)) (T, error) {
	return transact(ctx, s, func(w *writer) (T, error) {
		if w.incomplete {
			var none T
			return none, ledger.ErrIncomplete
		}
		return f(w)
	})
}

// transact has the writer run f in its next transaction and waits until that is durable. A context that ends
// before the writer got to f ends the call; afterwards the outcome is awaited, so that a caller is never told
// that nothing happened when something did.
func transact[T any](ctx context.Context, s *Store, f func(*writer) (T, error)) (T, error) {
	var got, none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	j := &job{done: make(chan error, 1)}
	j.run = func(w *writer) (err error) {
		got, err = f(w)
		return err
	}
	if err := s.queue.add(j); err != nil {
		return none, err
	}
	outcome := func(err error) (T, error) {
		if j.lost {
			return none, err
		}
		return got, err
	}
	select {
	case err := <-j.done:
		return outcome(err)
	case <-ctx.Done():
	}
	if j.taken.CompareAndSwap(false, true) {
		return none, ctx.Err()
	}
	late := time.NewTimer(s.patience)
	defer late.Stop()
	select {
	case err := <-j.done:
		return outcome(err)
	case <-late.C:
		return none, fmt.Errorf("%w for %v", ErrStalled, s.patience)
	}
}

// write is write for what has nothing to give.
func (s *Store) write(ctx context.Context, f func(*writer) error) error {
	_, err := write(ctx, s, func(w *writer) (struct{}, error) { return struct{}{}, f(w) })
	return err
}
