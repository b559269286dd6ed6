package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Memory is the ledger as simply as it can be said: maps, and one lock. It is what the stores are compared with, and
// good for tests of what works on any store. It keeps nothing: a crash is survived by a Clone.
type Memory struct {
	clock func() time.Time
	// forgets: Sweep forgets payments, as Redis does, instead of moving them to an archive.
	forgets bool

	mu           sync.Mutex
	closed       bool
	copying      bool
	rows         map[string]row
	claimed      map[x402.AuthorizationID]string // the payment's id, which may be forgotten
	sent         []ledger.Transaction
	wallets      map[wallet]uint64
	reservations map[common.Hash]ledger.Reservation
	revocations  []ledger.Revocation // by number
	revoked      uint64              // the last number
	allowances   map[common.Hash]ledger.Allowance
	objects      map[objectName]ledger.Object
	anchors      []ledger.Anchor
}

type row struct {
	p        ledger.Payment
	trail    []ledger.Entry
	sent     []ledger.Transaction // those that carry it, oldest first
	check    time.Time            // when an open payment is due
	archived bool
}

type wallet struct {
	chainID uint64
	address common.Address
}

var _ ledger.Store = (*Memory)(nil)

// NewMemory makes an empty one. forgets says that Sweep forgets payments instead of archiving what belongs to them.
func NewMemory(clock func() time.Time, forgets bool) *Memory {
	return &Memory{
		clock: clock, forgets: forgets, rows: map[string]row{}, claimed: map[x402.AuthorizationID]string{},
		wallets: map[wallet]uint64{}, reservations: map[common.Hash]ledger.Reservation{},
		allowances: map[common.Hash]ledger.Allowance{}, objects: map[objectName]ledger.Object{},
	}
}

// Clone is a copy that shares nothing with m but the clock.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{
		clock: m.clock, forgets: m.forgets, closed: m.closed, copying: m.copying, rows: maps.Clone(m.rows),
		claimed: maps.Clone(m.claimed), sent: slices.Clone(m.sent), wallets: maps.Clone(m.wallets),
		reservations: maps.Clone(m.reservations), allowances: maps.Clone(m.allowances), anchors: slices.Clone(m.anchors),
		revocations: slices.Clone(m.revocations), revoked: m.revoked, objects: maps.Clone(m.objects),
	}
}

// enter locks m for a call, or says why it can't be made. The caller unlocks.
func (m *Memory) enter(ctx context.Context) error {
	m.mu.Lock()
	err := ctx.Err()
	if m.closed {
		err = ledger.ErrClosed
	}
	if err != nil {
		m.mu.Unlock()
	}
	return err
}

// begin is enter for a call that writes, which nobody may while a copy is under way.
func (m *Memory) begin(ctx context.Context) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	if m.copying {
		m.mu.Unlock()
		return ledger.ErrIncomplete
	}
	return nil
}

// now is the clock, which never gives what is anchored.
func (m *Memory) now() time.Time {
	now := m.clock().UTC().Truncate(time.Microsecond)
	if n := len(m.anchors); n > 0 && !now.After(m.anchors[n-1].Until) {
		return m.anchors[n-1].Until.Add(time.Microsecond)
	}
	return now
}

// Now implements ledger.Store.
func (m *Memory) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now()
}

// Ping implements ledger.Store.
func (m *Memory) Ping(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	return nil
}

// Close implements ledger.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Claim implements ledger.Store.
func (m *Memory) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	if err := m.begin(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer m.mu.Unlock()
	p, e, err := ledger.Create(p, c, m.now())
	if err != nil {
		return ledger.Payment{}, err
	}
	if id, ok := m.claimed[p.AuthorizationID]; ok {
		return m.rows[id].p, ledger.ErrExists
	}
	if _, ok := m.rows[p.ID]; ok {
		return ledger.Payment{}, errors.New("the id is taken")
	}
	m.rows[p.ID] = row{p: p, trail: []ledger.Entry{e}, check: p.CreatedAt}
	m.claimed[p.AuthorizationID] = p.ID
	return p, nil
}

// Payment implements ledger.Store.
func (m *Memory) Payment(ctx context.Context, id string) (ledger.Payment, error) {
	if err := m.enter(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer m.mu.Unlock()
	r, ok := m.rows[id]
	if !ok {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return r.p, nil
}

// ByAuthorization implements ledger.Store.
func (m *Memory) ByAuthorization(ctx context.Context, a x402.AuthorizationID) (ledger.Payment, error) {
	if err := m.enter(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer m.mu.Unlock()
	r, ok := m.rows[m.claimed[a]]
	if !ok {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return r.p, nil
}

// Unserved implements ledger.Store.
func (m *Memory) Unserved(ctx context.Context, like ledger.Payment, limit int) ([]ledger.Payment, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := m.list(func(p ledger.Payment) bool {
		a, b := p.Binding, like.Binding
		return p.Unserved() && p.Payer == like.Payer && p.ChainID == like.ChainID && p.Asset == like.Asset &&
			p.Amount == like.Amount && a.Route == b.Route && a.Plan == b.Plan && a.Host == b.Host
	})
	return got[:min(limit, len(got))], nil
}

// LivePlans implements ledger.Store.
func (m *Memory) LivePlans(ctx context.Context, payer common.Address, route, host string, limit int) ([]ledger.Payment, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := m.list(func(p ledger.Payment) bool {
		return p.Payer == payer && p.Binding.Route == route && p.Binding.Host == host &&
			p.Delivery == ledger.Delivered && p.PlanUntil.After(m.now())
	})
	slices.SortStableFunc(got, func(a, b ledger.Payment) int { return b.PlanUntil.Compare(a.PlanUntil) })
	return got[:min(limit, len(got))], nil
}

// list gives the payments that keep says, oldest first and by id where they are of one age.
func (m *Memory) list(keep func(ledger.Payment) bool) []ledger.Payment {
	var got []ledger.Payment
	for _, r := range m.rows {
		if keep(r.p) {
			got = append(got, r.p)
		}
	}
	slices.SortFunc(got, func(a, b ledger.Payment) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return got
}

// Update implements ledger.Store.
func (m *Memory) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if err := m.begin(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer m.mu.Unlock()
	r, ok := m.rows[id]
	if !ok {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	if r.p.Version != version {
		return ledger.Payment{}, ledger.ErrConflict
	}
	now := m.now()
	p, entries, err := ledger.Advance(r.p, r.trail[len(r.trail)-1].Hash, now, changes...)
	if err != nil || len(entries) == 0 {
		return p, err
	}
	m.save(r, p, entries...)
	return p, nil
}

func (m *Memory) save(r row, p ledger.Payment, entries ...ledger.Entry) {
	if !r.p.Open() && p.Open() {
		r.check = p.UpdatedAt
	}
	r.p, r.trail, r.archived = p, slices.Concat(r.trail, entries), false
	m.rows[p.ID] = r
}

// Audit implements ledger.Store.
func (m *Memory) Audit(ctx context.Context, id string) ([]ledger.Entry, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	r, ok := m.rows[id]
	if !ok {
		return nil, ledger.ErrNotFound
	}
	return slices.Clone(r.trail), nil
}

// Nonce implements ledger.Store.
func (m *Memory) Nonce(ctx context.Context, chainID uint64, address common.Address) (uint64, bool, error) {
	if err := m.enter(ctx); err != nil {
		return 0, false, err
	}
	defer m.mu.Unlock()
	next, known := m.wallets[wallet{chainID, address}]
	return next, known, nil
}

// AdvanceNonce implements ledger.Store.
func (m *Memory) AdvanceNonce(ctx context.Context, chainID uint64, address common.Address, to uint64) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	w := wallet{chainID, address}
	m.wallets[w] = max(m.wallets[w], to)
	return nil
}

// Record implements ledger.Store.
func (m *Memory) Record(ctx context.Context, t ledger.Transaction, actor string) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	w, now := wallet{t.ChainID, t.Wallet}, m.now()
	if had, ok := m.recorded(t); ok {
		if had.Wallet == t.Wallet && had.Nonce == t.Nonce && had.Carries(t.Payments) {
			return nil
		}
		return ledger.ErrNonce
	}
	next, known := m.wallets[w]
	advances := !known || t.Nonce == next
	if !advances && !m.replaces(t) {
		return ledger.ErrNonce
	}
	after := map[string]ledger.Payment{}
	entries := map[string]ledger.Entry{}
	for _, id := range t.Payments {
		r, ok := m.rows[id]
		if !ok {
			return ledger.ErrNotFound
		}
		p, e, err := ledger.Send(r.p, r.trail[len(r.trail)-1].Hash, now, &t, actor)
		if _, twice := after[id]; twice && err == nil {
			err = ledger.ErrTransition
		}
		if err != nil {
			return err
		}
		after[id], entries[id] = p, e
	}
	t.CreatedAt, t.Payments, t.Raw = now, slices.Clone(t.Payments), bytes.Clone(t.Raw)
	for id, p := range after {
		r := m.rows[id]
		r.sent = append(slices.Clip(r.sent), t)
		m.save(r, p, entries[id])
	}
	if advances {
		m.wallets[w] = t.Nonce + 1
	}
	m.sent = append(m.sent, t)
	return nil
}

func (m *Memory) recorded(t ledger.Transaction) (ledger.Transaction, bool) {
	i := slices.IndexFunc(m.sent, func(had ledger.Transaction) bool { return had.ChainID == t.ChainID && had.Hash == t.Hash })
	if i < 0 {
		return t, false
	}
	return m.sent[i], true
}

func (m *Memory) replaces(t ledger.Transaction) bool {
	return slices.ContainsFunc(m.sent, func(had ledger.Transaction) bool {
		return had.ChainID == t.ChainID && had.Wallet == t.Wallet && had.Nonce == t.Nonce &&
			(len(t.Payments) == 0 || had.Carries(t.Payments))
	})
}

// Transactions implements ledger.Store.
func (m *Memory) Transactions(ctx context.Context, id string) ([]ledger.Transaction, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return slices.Clone(m.rows[id].sent), nil
}

// due lists what a lease may give, all of it: of payments equally long due the order is free.
func (m *Memory) due() []row {
	now := m.now()
	var got []row
	for _, r := range m.rows {
		if r.p.Open() && !r.p.Held(now) && !r.check.After(now) {
			got = append(got, r)
		}
	}
	slices.SortFunc(got, func(a, b row) int { return a.check.Compare(b.check) })
	return got
}

// Lease implements ledger.Store.
func (m *Memory) Lease(ctx context.Context, limit int, ttl time.Duration) ([]ledger.Payment, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var got []ledger.Payment
	for _, r := range m.due() {
		if len(got) < limit {
			got = append(got, r.p)
			m.putOff(r.p.ID, ttl)
		}
	}
	return got, nil
}

// Recheck implements ledger.Store.
func (m *Memory) Recheck(ctx context.Context, id string, after time.Duration) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	r, ok := m.rows[id]
	if !ok {
		return ledger.ErrNotFound
	}
	if r.p.Open() {
		m.putOff(id, after)
	}
	return nil
}

func (m *Memory) putOff(id string, after time.Duration) {
	r := m.rows[id]
	r.check = m.now().Add(after.Truncate(time.Microsecond))
	m.rows[id] = r
}
