package wallet

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// job is a payment that waits for a transaction.
type job struct {
	// ctx is its caller's: who has left gets no transaction.
	ctx context.Context
	in  settlement.Intent
	t   transfer
	// verdict is what was found when the transfer was simulated alone.
	verdict verdict
	// txs are its transactions that are known, all of them dead; found are all that the journal has, once it has more.
	txs, found []settlement.Transaction
	// most is how many payments its transaction may carry; 0: as many as there are.
	most int
	// done gets the answer. It is buffered: nobody waits for who has left.
	done chan dispatched
}

// dispatched says what became of a job: the transaction that carries it, or why there is none.
type dispatched struct {
	parcel *parcel
	err    error
}

func (j *job) alone() bool { return j.most == 1 || j.verdict.alone }

func (j *job) end(p *parcel, err error) { j.done <- dispatched{p, err} }

// payerShare is the part of the queue that one payer may fill.
const payerShare = 16

var (
	errFull  = fmt.Errorf("%w: too many payments wait for a transaction; nothing was sent for this one", settlement.ErrUnavailable)
	errShare = fmt.Errorf("%w: too many payments of this payer wait for a transaction; nothing was sent for this one", settlement.ErrUnavailable)
)

// queue holds the jobs of all lanes. Payers take turns, so that who floods it waits behind itself.
type queue struct {
	mu      sync.Mutex
	most    int
	waiting int
	lines   map[common.Address]*list.Element
	turns   list.List // of *line; who is next comes first
	changed chan struct{}
}

// line is what a payer has in the queue.
type line struct {
	payer common.Address
	jobs  []*job
}

func (q *queue) init() {
	q.lines = make(map[common.Address]*list.Element)
	q.changed = make(chan struct{})
}

func (q *queue) resize(most int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = most
}

// room is nil if a payment of payer could be put into the queue now.
func (q *queue) room(payer common.Address) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.refuses(payer)
}

func (q *queue) refuses(payer common.Address) error {
	if q.waiting >= q.most {
		return errFull
	}
	if e := q.lines[payer]; e != nil && len(e.Value.(*line).jobs) >= max(1, q.most/payerShare) {
		return errShare
	}
	return nil
}

// put lets j wait.
func (q *queue) put(j *job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.refuses(j.in.Authorization.From); err != nil {
		return err
	}
	ln := q.line(j.in.Authorization.From)
	ln.jobs = append(ln.jobs, j)
	q.waiting++
	q.wake()
	return nil
}

// back puts jobs that were taken before all others of their payers, however full it is.
func (q *queue) back(jobs []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range slices.Backward(jobs) {
		ln := q.line(j.in.Authorization.From)
		ln.jobs = append([]*job{j}, ln.jobs...)
		q.turns.MoveToFront(q.lines[ln.payer])
		q.waiting++
	}
	q.wake()
}

func (q *queue) line(payer common.Address) *line {
	e := q.lines[payer]
	if e == nil {
		e = q.turns.PushBack(&line{payer: payer})
		q.lines[payer] = e
	}
	return e.Value.(*line)
}

// take gives at most n jobs that may travel together, one of each payer in turn. What has to travel alone is passed over
// unless it comes first, and keeps its turn.
func (q *queue) take(n int) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	var got []*job
	var passed []*line
	for len(got) < n && q.turns.Len() > 0 {
		e := q.turns.Front()
		ln := e.Value.(*line)
		j := ln.jobs[0]
		if len(got) > 0 && (j.alone() || j.most > 0 && j.most <= len(got)) {
			passed = append(passed, ln)
			q.turns.Remove(e)
			continue
		}
		q.waiting--
		if ln.jobs = ln.jobs[1:]; len(ln.jobs) == 0 {
			q.turns.Remove(e)
			delete(q.lines, ln.payer)
		} else {
			q.turns.MoveToBack(e)
		}
		if err := j.ctx.Err(); err != nil {
			j.end(nil, unavailable(err))
			continue
		}
		got = append(got, j)
		if j.alone() {
			break
		}
		if j.most > 0 {
			n = min(n, j.most)
		}
	}
	for _, ln := range slices.Backward(passed) {
		q.lines[ln.payer] = q.turns.PushFront(ln)
	}
	return got
}

// look gives how many jobs wait, and what is closed when that, or anything else that lanes wait for, changes.
func (q *queue) look() (waiting int, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting, q.changed
}

// poke lets the lanes look again.
func (q *queue) poke() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// turns lets callers with the same payment come one after the other: the second one finds what the first one sent.
type turns struct {
	mu sync.Mutex
	m  map[string]*turn
}

type turn struct {
	lock lock
	n    int // who has it or waits for it
}

// take waits for the payment's turn; the caller gives it back.
func (t *turns) take(ctx context.Context, payment string) (back func(), err error) {
	t.mu.Lock()
	one := t.m[payment]
	if one == nil {
		if t.m == nil {
			t.m = make(map[string]*turn)
		}
		one = &turn{lock: newLock()}
		t.m[payment] = one
	}
	one.n++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.n--; one.n == 0 {
			delete(t.m, payment)
		}
	}
	if err := one.lock.lock(ctx); err != nil {
		leave()
		return nil, unavailable(err)
	}
	return func() { one.lock.unlock(); leave() }, nil
}

// maxVerdictAge is how long a simulation says whether a payment may travel with others.
const maxVerdictAge = 30 * time.Second
