package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// testWorkers lets several workers on two instances do anything at all to few payments, at once, while the instances are
// killed now and then. Then it looks at the store alone: the invariants hold, and what was acknowledged is there.
func testWorkers(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	rounds, actions := 6, 40
	if o.Light {
		rounds, actions = 3, 30
	}
	told := &acknowledgements{versions: map[string]uint64{}, sent: map[common.Hash]ledger.Transaction{}, ids: map[string]bool{}}
	for round := range rounds {
		told.over.Store(false)
		crash := round%3 != 2
		stores := f.instances()
		var wg sync.WaitGroup
		var done atomic.Int64
		enough := make(chan struct{})
		for i := range 8 {
			w := &worker{
				f: f, s: stores[i%2], told: told, random: rand.New(rand.NewPCG(uint64(round), uint64(i))),
				hashes: 1 + uint64(round)<<32 + uint64(i)<<16, forgets: o.Forgets,
			}
			wg.Go(func() {
				for range actions {
					if err := w.act(); err != nil && !told.over.Load() {
						t.Errorf("worker %d in round %d: %v", i, round, err)
					}
					if done.Add(1) == int64(actions)*4 {
						close(enough)
					}
					if told.over.Load() {
						return
					}
				}
			})
		}
		if crash {
			<-enough // half of it
			told.stop()
			f.b.Crash()
		}
		wg.Wait()
		f.invariants(told)
		// Between the rounds nothing is under way, so time may pass.
		f.age()
		f.anchor()
	}
	f.workedOff()
}

// acknowledgements are what workers were answered before a crash.
type acknowledgements struct {
	over atomic.Bool

	mu       sync.Mutex
	versions map[string]uint64
	sent     map[common.Hash]ledger.Transaction
	ids      map[string]bool // of payments that were ever offered
}

// stop says that a crash begins: what is answered from now on counts for nothing.
func (a *acknowledgements) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over.Store(true)
}

func (a *acknowledgements) payment(p ledger.Payment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over.Load() {
		a.versions[p.ID] = max(a.versions[p.ID], p.Version)
	}
}

func (a *acknowledgements) transaction(t ledger.Transaction) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over.Load() {
		a.sent[t.Hash] = t
	}
}

func (a *acknowledgements) offered(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ids[id] = true
}

// any is the id of a payment that may be there.
func (a *acknowledgements) any(random *rand.Rand) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := make([]string, 0, len(a.versions))
	for id := range a.versions {
		known = append(known, id)
	}
	if len(known) == 0 {
		return "pay_none"
	}
	slices.Sort(known)
	return known[random.IntN(len(known))]
}

// worker does things at random.
type worker struct {
	f      *fixture
	s      ledger.Store
	told   *acknowledgements
	random *rand.Rand
	hashes uint64
	// forgets: see Options.
	forgets bool
}

// refusals are what a worker must expect to be told.
var refusals = []error{
	ledger.ErrTransition, ledger.ErrFence, ledger.ErrConflict, ledger.ErrNotFound, ledger.ErrExists, ledger.ErrNonce,
}

// act does one thing. It returns what no store should answer.
func (w *worker) act() error {
	if w.random.IntN(2) == 0 {
		w.f.clock.Add(time.Duration(w.random.IntN(10_000)) * time.Microsecond)
	}
	things := []func() error{w.claim, w.claim, w.update, w.update, w.update, w.update, w.update, w.send, w.send, w.lease, w.reserve, w.books}
	err := things[w.random.IntN(len(things))]()
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			return nil
		}
	}
	return err
}

func (w *worker) claim() error {
	p := newPayment(w.f, w.random.Uint64N(3), w.random.Uint64N(3))
	p.Flow = flows[w.random.IntN(len(flows))]
	w.told.offered(p.ID)
	c := ledger.Change{Actor: "request", Hold: w.hold()}
	if w.random.IntN(20) == 0 {
		c.Event, c.Transaction = ledger.EventImport, hash(5)
	}
	got, err := w.s.Claim(w.f.ctx, p, c)
	if err == nil || errors.Is(err, ledger.ErrExists) {
		w.told.payment(got)
	}
	if errors.Is(err, ledger.ErrExists) && got.AuthorizationID != p.AuthorizationID {
		return fmt.Errorf("%s exists, but of another authorization", got.ID)
	}
	return err
}

func (w *worker) hold() time.Duration { return time.Duration(w.random.IntN(40)) * time.Millisecond }

func (w *worker) update() error {
	p, err := w.s.Payment(w.f.ctx, w.told.any(w.random))
	if err != nil {
		return err
	}
	changes := make([]ledger.Change, 0, 2)
	for range 1 + w.random.IntN(2) {
		changes = append(changes, ledger.Change{
			Event: modelEvents[w.random.IntN(len(modelEvents))], Actor: "worker", Fence: p.Hold.Fence, Hold: w.hold(),
			Transaction: hash(w.random.Uint64N(9)),
		})
	}
	got, err := w.s.Update(w.f.ctx, p.ID, p.Version, changes...)
	if err != nil {
		return err
	}
	w.told.payment(got)
	if got.Version != p.Version+uint64(len(changes)) {
		return fmt.Errorf("%d changes of version %d made version %d", len(changes), p.Version, got.Version)
	}
	return nil
}

// send signs for some payments with one of two wallets, or again with a nonce that was used.
func (w *worker) send() error {
	n := 20 + w.random.Uint64N(2)
	nonce, known, err := w.s.Nonce(w.f.ctx, 84532, account(n))
	if err != nil {
		return err
	}
	if known && nonce > 0 && w.random.IntN(3) == 0 {
		nonce--
	}
	var payments []string
	for range w.random.IntN(3) {
		if id := w.told.any(w.random); !slices.Contains(payments, id) {
			payments = append(payments, id)
		}
	}
	w.hashes++
	t := newTransaction(n, nonce, w.hashes, payments...)
	if err := w.s.Record(w.f.ctx, t, "worker"); err != nil {
		return err
	}
	w.told.transaction(t)
	return nil
}

func (w *worker) lease() error {
	got, err := w.s.Lease(w.f.ctx, 1+w.random.IntN(3), w.hold())
	if err != nil || len(got) == 0 {
		return err
	}
	return w.s.Recheck(w.f.ctx, got[0].ID, w.hold())
}

func (w *worker) reserve() error {
	key := hash(w.random.Uint64N(2))
	had, err := w.s.Reservation(w.f.ctx, key)
	if err == nil && w.random.IntN(2) == 0 {
		return w.s.KeepAnswer(w.f.ctx, key, had.Payment, []byte{byte(w.hashes)}, time.Hour)
	}
	r := ledger.Reservation{Key: key, Payment: w.told.any(w.random)}
	_, err = w.s.Reserve(w.f.ctx, r, had.Payment, time.Duration(1+w.random.IntN(50))*time.Millisecond)
	return err
}

func (w *worker) books() error {
	switch w.random.IntN(3) {
	case 0:
		_, err := ledger.NextAnchor(w.f.ctx, w.s, w.s.Now())
		return err
	case 1:
		keep := time.Duration(w.random.IntN(3)) * 5 * time.Millisecond
		if w.forgets { // what is gone can't be compared
			keep = 0
		}
		_, err := w.s.Sweep(w.f.ctx, keep, 5)
		return err
	}
	_, err := verified(w.s.Records(w.f.ctx, "", 100))
	return err
}

// invariants are checked from what the store says, whoever did what.
func (f *fixture) invariants(told *acknowledgements) {
	f.Helper()
	records := f.records() // I5: each trail is whole, and replayed it is the payment
	had := map[x402.AuthorizationID]string{}
	at := map[string]ledger.Record{}
	for _, r := range records {
		p := r.Payment
		if other, ok := had[p.AuthorizationID]; ok {
			f.Errorf("I1: %s and %s have one authorization", p.ID, other)
		}
		had[p.AuthorizationID], at[p.ID] = p.ID, r
		if got, err := f.store().ByAuthorization(f.ctx, p.AuthorizationID); err != nil || got != p {
			f.Errorf("I1: by authorization %+v, %v; want %+v", got, err, p)
		}
		if !told.ids[p.ID] {
			f.Errorf("%s was never offered", p.ID)
		}
		f.once(r)
	}
	for id, version := range told.versions {
		if r := at[id]; r.Payment.Version < version {
			f.Errorf("%s was acknowledged in version %d and has version %d", id, version, r.Payment.Version)
		}
	}
	f.nonces(told, records)
	report, err := ledger.Verify(f.ctx, f.store(), ledger.VerifyOptions{})
	if err != nil || report.Found != 0 || report.Payments != int64(len(records)) {
		f.Errorf("I5: %+v, %v", report, err)
	}
}

// once looks at one trail: what it tells of delivery, refund and transactions.
func (f *fixture) once(r ledger.Record) {
	f.Helper()
	n := map[ledger.Event]int{}
	for _, e := range r.Trail {
		n[e.Event]++
		if e.Event == ledger.EventSend && !slices.ContainsFunc(r.Transactions, func(t ledger.Transaction) bool { return t.Hash == e.Transaction }) {
			f.Errorf("%s was sent with %s, which is not recorded", r.Payment.ID, e.Transaction)
		}
	}
	p := r.Payment
	if n[ledger.EventDelivered] > 1 || n[ledger.EventRefunded] > 1 || n[ledger.EventDelivered]+n[ledger.EventRefunded] > 1 {
		f.Errorf("I3: %s was delivered %d times, refunded %d times", p.ID, n[ledger.EventDelivered], n[ledger.EventRefunded])
	}
	waits := p.Refund != ledger.NotRefunded || p.Delivery == ledger.Delivered
	sale := !p.Facilitated() && !p.PaysBack()
	if !sale && waits {
		f.Errorf("I3: %s is no sale of ours, and is %s, %s", p.ID, p.Delivery, p.Refund)
	}
	if p.Settlement == ledger.Settled && !waits && !p.Open() && sale {
		f.Errorf("I4: %s is %s, and nobody looks after it", p.ID, p.State())
	}
	if n[ledger.EventSend] != len(r.Transactions) {
		f.Errorf("%s was sent %d times, with %d transactions", p.ID, n[ledger.EventSend], len(r.Transactions))
	}
}

// nonces of each wallet have no gap, each carries the same payments in all its transactions, and none that was acknowledged is
// missing.
func (f *fixture) nonces(told *acknowledgements, records []ledger.Record) {
	f.Helper()
	wallets, err := f.store().Wallets(f.ctx)
	if err != nil {
		f.Fatalf("wallets: %v", err)
	}
	all := map[common.Hash]ledger.Transaction{}
	for _, r := range records {
		for _, t := range r.Transactions {
			all[t.Hash] = t
		}
	}
	for _, w := range wallets {
		for _, t := range w.Freed {
			all[t.Hash] = t
		}
		used := map[uint64][]string{}
		seen := map[uint64]bool{}
		for _, t := range all {
			if t.Wallet != w.Address {
				continue
			}
			seen[t.Nonce] = true
			if len(t.Payments) > 0 && used[t.Nonce] != nil && !t.Carries(used[t.Nonce]) {
				f.Errorf("nonce %d of %s carries %v and %v", t.Nonce, w.Address, t.Payments, used[t.Nonce])
			}
			if len(t.Payments) > 0 {
				used[t.Nonce] = t.Payments
			}
		}
		for nonce := range w.NextNonce {
			if !seen[nonce] {
				f.Errorf("nonce %d of %s was left out, the next is %d", nonce, w.Address, w.NextNonce)
			}
		}
		if uint64(len(seen)) != w.NextNonce {
			f.Errorf("%s has used %d nonces, the next is %d", w.Address, len(seen), w.NextNonce)
		}
	}
	for h, t := range told.sent {
		if got, ok := all[h]; !ok || got.Nonce != t.Nonce || !got.Carries(t.Payments) {
			f.Errorf("%+v was acknowledged, and is %+v", t, got)
		}
	}
}

// workedOff leases what is due when no hold lives: all that is open, and nothing else (I4).
func (f *fixture) workedOff() {
	f.Helper()
	f.clock.Add(time.Hour)
	open := map[string]bool{}
	for _, r := range f.records() {
		if r.Payment.Open() {
			open[r.Payment.ID] = true
		}
	}
	due, err := f.store().Lease(f.ctx, 1000, time.Minute)
	if err != nil || len(due) != len(open) {
		f.Errorf("I4: %d payments are due, %d are open: %v", len(due), len(open), err)
	}
	for _, p := range due {
		if !open[p.ID] {
			f.Errorf("%s is due, and not open", p.ID)
		}
	}
}
