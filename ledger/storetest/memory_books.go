package storetest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Reserve implements ledger.Store.
func (m *Memory) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	if err := m.begin(ctx); err != nil {
		return ledger.Reservation{}, err
	}
	defer m.mu.Unlock()
	if had, ok := m.reserved(r.Key); ok && (over == "" || had.Payment != over) {
		return had, ledger.ErrExists
	}
	now := m.now()
	r.CreatedAt, r.ExpiresAt, r.Answer = now, now.Add(ttl.Truncate(time.Microsecond)), bytes.Clone(r.Answer)
	m.reservations[r.Key] = r
	return r, nil
}

func (m *Memory) reserved(key common.Hash) (ledger.Reservation, bool) {
	r, ok := m.reservations[key]
	return r, ok && r.ExpiresAt.After(m.now())
}

// Reservation implements ledger.Store.
func (m *Memory) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	if err := m.enter(ctx); err != nil {
		return ledger.Reservation{}, err
	}
	defer m.mu.Unlock()
	r, ok := m.reserved(key)
	if !ok {
		return ledger.Reservation{}, ledger.ErrNotFound
	}
	return r, nil
}

// KeepAnswer implements ledger.Store.
func (m *Memory) KeepAnswer(ctx context.Context, key common.Hash, payment string, answer []byte, ttl time.Duration) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	r, ok := m.reserved(key)
	switch {
	case !ok || r.Payment != payment:
		return ledger.ErrNotFound
	case len(r.Answer) == 0:
		r.Answer, r.ExpiresAt = bytes.Clone(answer), m.now().Add(ttl.Truncate(time.Microsecond))
		m.reservations[key] = r
	}
	return nil
}

// List implements ledger.Store.
func (m *Memory) List(ctx context.Context, q ledger.Query) ([]ledger.Payment, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := m.list(func(p ledger.Payment) bool {
		c := cmp.Or(p.CreatedAt.Compare(q.Before.At), cmp.Compare(p.ID, q.Before.Payment))
		return (q.State == "" || p.State() == q.State) && (q.Payer == common.Address{} || p.Payer == q.Payer) &&
			(q.Before == ledger.Mark{} || c < 0)
	})
	slices.Reverse(got)
	return got[:min(q.Limit, len(got))], nil
}

// Counts implements ledger.Store.
func (m *Memory) Counts(ctx context.Context) (map[ledger.State]int64, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := map[ledger.State]int64{}
	for _, r := range m.rows {
		got[r.p.State()]++
	}
	return got, nil
}

func compareMarks(a, b ledger.Mark) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Payment, b.Payment), cmp.Compare(a.Version, b.Version))
}

// Entries implements ledger.Store.
func (m *Memory) Entries(ctx context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var got []ledger.Entry
	for _, r := range m.rows {
		for _, e := range r.trail {
			if compareMarks(e.Mark(), after) > 0 && !e.At.After(until) {
				got = append(got, e)
			}
		}
	}
	slices.SortFunc(got, func(a, b ledger.Entry) int { return compareMarks(a.Mark(), b.Mark()) })
	return got[:min(limit, len(got))], nil
}

// Anchors implements ledger.Store.
func (m *Memory) Anchors(ctx context.Context, after uint64, limit int) ([]ledger.Anchor, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := slices.DeleteFunc(slices.Clone(m.anchors), func(a ledger.Anchor) bool { return a.Sequence <= after })
	return got[:min(limit, len(got))], nil
}

// LastAnchor implements ledger.Store.
func (m *Memory) LastAnchor(ctx context.Context) (ledger.Anchor, error) {
	if err := m.enter(ctx); err != nil {
		return ledger.Anchor{}, err
	}
	defer m.mu.Unlock()
	if len(m.anchors) == 0 {
		return ledger.Anchor{}, ledger.ErrNotFound
	}
	return m.anchors[len(m.anchors)-1], nil
}

// AddAnchor implements ledger.Store.
func (m *Memory) AddAnchor(ctx context.Context, a ledger.Anchor) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	return m.addAnchor(a)
}

func (m *Memory) addAnchor(a ledger.Anchor) error {
	var last *ledger.Anchor
	if n := len(m.anchors); n > 0 {
		last = &m.anchors[n-1]
	}
	if !a.Follows(last) {
		return ledger.ErrConflict
	}
	m.anchors = append(m.anchors, a)
	return nil
}

// Sweep implements ledger.Store.
func (m *Memory) Sweep(ctx context.Context, keep time.Duration, limit int) (int, error) {
	if err := m.begin(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	n := 0
	for key := range m.reservations {
		if _, live := m.reserved(key); !live && n < limit {
			delete(m.reservations, key)
			n++
		}
	}
	n += m.lapse(limit - n)
	for key := range m.allowances {
		if _, live := m.allowance(key); !live && n < limit {
			delete(m.allowances, key)
			n++
		}
	}
	n += m.sweepObjects(limit - n)
	for id, r := range m.rows {
		switch {
		case keep == 0, n >= limit, r.archived, !r.p.Closed(), r.p.UpdatedAt.After(m.now().Add(-keep)):
			continue
		case m.forgets:
			delete(m.rows, id)
		default:
			r.archived = true
			m.rows[id] = r
		}
		n++
	}
	return n, nil
}

// Records implements ledger.Store.
func (m *Memory) Records(ctx context.Context, after string, limit int) ([]ledger.Record, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var got []ledger.Record
	for _, id := range slices.Sorted(maps.Keys(m.rows)) {
		if id > after && len(got) < limit {
			got = append(got, m.whole(id))
		}
	}
	return got, nil
}

func (m *Memory) whole(id string) ledger.Record {
	r := m.rows[id]
	return ledger.Record{Payment: r.p, Trail: slices.Clone(r.trail), Transactions: slices.Clone(r.sent)}
}

// Wallets implements ledger.Store.
func (m *Memory) Wallets(ctx context.Context) ([]ledger.Wallet, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var got []ledger.Wallet
	for w := range m.wallets {
		got = append(got, m.wallet(w))
	}
	slices.SortFunc(got, func(a, b ledger.Wallet) int {
		return cmp.Or(cmp.Compare(a.ChainID, b.ChainID), a.Address.Cmp(b.Address))
	})
	return got, nil
}

func (m *Memory) wallet(w wallet) ledger.Wallet {
	got := ledger.Wallet{ChainID: w.chainID, Address: w.address, NextNonce: m.wallets[w]}
	for _, t := range m.sent {
		if t.ChainID == w.chainID && t.Wallet == w.address && len(t.Payments) == 0 {
			got.Freed = append(got.Freed, t)
		}
	}
	return got
}

// EachReservation implements ledger.Store.
func (m *Memory) EachReservation(ctx context.Context, f func(ledger.Reservation) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	var live []ledger.Reservation
	for key := range m.reservations {
		if r, ok := m.reserved(key); ok {
			live = append(live, r)
		}
	}
	m.mu.Unlock()
	for _, r := range live {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// Import implements ledger.Store.
func (m *Memory) Import(ctx context.Context, part ledger.Part) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	used := len(m.rows) + len(m.wallets) + len(m.reservations) + len(m.revocations) + len(m.allowances) + len(m.objects) + len(m.anchors)
	if !m.copying && used > 0 {
		return ledger.ErrExists
	}
	m.copying = true
	for _, r := range part.Records {
		if err := m.importRecord(r); err != nil {
			return err
		}
	}
	for _, w := range part.Wallets {
		if err := m.importWallet(w); err != nil {
			return err
		}
	}
	for _, r := range part.Reservations {
		if had, ok := m.reservations[r.Key]; ok && !same(had, r) {
			return ledger.ErrConflict
		}
		m.reservations[r.Key] = r
	}
	for _, r := range part.Revocations {
		if err := m.importRevocation(r); err != nil {
			return err
		}
	}
	for _, a := range part.Allowances {
		if had, ok := m.allowances[a.Key]; ok && !same(had, a) {
			return ledger.ErrConflict
		}
		m.allowances[a.Key] = a
	}
	for _, o := range part.Objects {
		if err := m.importObject(o); err != nil {
			return err
		}
	}
	for _, a := range part.Anchors {
		if i := int(a.Sequence) - 1; i >= 0 && i < len(m.anchors) && m.anchors[i] == a {
			continue
		}
		if err := m.addAnchor(a); err != nil {
			return err
		}
	}
	m.copying = !part.Complete
	return nil
}

func (m *Memory) importRecord(r ledger.Record) error {
	p := r.Payment
	if _, ok := m.rows[p.ID]; ok {
		if !same(m.whole(p.ID), r) {
			return ledger.ErrConflict
		}
		return nil
	}
	if _, ok := m.claimed[p.AuthorizationID]; ok {
		return ledger.ErrConflict
	}
	m.rows[p.ID] = row{p: p, trail: r.Trail, sent: r.Transactions, check: p.CreatedAt}
	m.claimed[p.AuthorizationID] = p.ID
	m.importTransactions(r.Transactions)
	return nil
}

// importTransactions adds those that did not come with another payment.
func (m *Memory) importTransactions(ts []ledger.Transaction) {
	for _, t := range ts {
		if _, ok := m.recorded(t); !ok {
			m.sent = append(m.sent, t)
		}
	}
	slices.SortStableFunc(m.sent, func(a, b ledger.Transaction) int { return a.CreatedAt.Compare(b.CreatedAt) })
}

func (m *Memory) importWallet(w ledger.Wallet) error {
	key := wallet{w.ChainID, w.Address}
	if _, ok := m.wallets[key]; ok {
		if !same(m.wallet(key), w) {
			return ledger.ErrConflict
		}
		return nil
	}
	m.wallets[key] = w.NextNonce
	m.importTransactions(w.Freed)
	return nil
}

// same compares what stores give. An empty slice is the same as none.
func same(a, b any) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && (bytes.Equal(x, y) || nothing(x) && nothing(y))
}

func nothing(b []byte) bool { return string(b) == "null" || string(b) == "[]" }

// difference shows where got begins to differ from want.
func difference(got, want any) string {
	x, _ := json.Marshal(got)
	y, _ := json.Marshal(want)
	i := 0
	for i < min(len(x), len(y)) && x[i] == y[i] {
		i++
	}
	from := max(0, i-200)
	return fmt.Sprintf("after %d equal bytes:\n  got  …%s…\n  want …%s…", i, x[from:min(len(x), i+200)], y[from:min(len(y), i+200)])
}
