package storetest

import (
	"context"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Revoke implements ledger.Store.
func (m *Memory) Revoke(ctx context.Context, id string, until time.Time) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	until = until.UTC().Truncate(time.Microsecond)
	same := func(r ledger.Revocation) bool { return r.ID == id }
	if at := slices.IndexFunc(m.revocations, same); at >= 0 && !m.revocations[at].Until.Before(until) {
		return nil
	}
	m.revocations = slices.DeleteFunc(m.revocations, same)
	m.revoke(id, until)
	return nil
}

func (m *Memory) revoke(id string, until time.Time) {
	m.revoked++
	m.revocations = append(m.revocations, ledger.Revocation{Number: m.revoked, ID: id, Until: until})
}

// Revoked implements ledger.Store.
func (m *Memory) Revoked(ctx context.Context, after uint64, limit int) ([]ledger.Revocation, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := slices.DeleteFunc(slices.Clone(m.revocations), func(r ledger.Revocation) bool { return r.Number <= after })
	return got[:min(max(limit, 0), len(got))], nil
}

func (m *Memory) importRevocation(r ledger.Revocation) error {
	at := slices.IndexFunc(m.revocations, func(had ledger.Revocation) bool { return had.ID == r.ID })
	switch {
	case at < 0:
		m.revoke(r.ID, r.Until)
	case !m.revocations[at].Until.Equal(r.Until):
		return ledger.ErrConflict
	}
	return nil
}

// lapse removes what ended long ago.
func (m *Memory) lapse(limit int) (n int) {
	m.revocations = slices.DeleteFunc(m.revocations, func(r ledger.Revocation) bool {
		gone := n < limit && !r.Until.After(m.now().Add(-ledger.RevocationGrace))
		if gone {
			n++
		}
		return gone
	})
	return n
}
