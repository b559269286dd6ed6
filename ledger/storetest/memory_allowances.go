package storetest

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Draw implements ledger.Store.
func (m *Memory) Draw(ctx context.Context, d ledger.Draw) (uint256.Int, ledger.Allowance, error) {
	if err := m.begin(ctx); err != nil {
		return uint256.Int{}, ledger.Allowance{}, err
	}
	defer m.mu.Unlock()
	next, n := d.Take(m.allowances[d.Key], m.now())
	if !n.IsZero() {
		m.allowances[d.Key] = next
	}
	return n, next, nil
}

// Return implements ledger.Store.
func (m *Memory) Return(ctx context.Context, key common.Hash, created time.Time, n uint256.Int) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	had := m.allowances[key]
	next, changed, err := had.GiveBack(created, n, m.now())
	if err == nil && changed {
		m.allowances[key] = next
	}
	return err
}

func (m *Memory) allowance(key common.Hash) (ledger.Allowance, bool) {
	a, ok := m.allowances[key]
	return a, ok && a.Live(m.now())
}

// Allowance implements ledger.Store.
func (m *Memory) Allowance(ctx context.Context, key common.Hash) (ledger.Allowance, error) {
	if err := m.enter(ctx); err != nil {
		return ledger.Allowance{}, err
	}
	defer m.mu.Unlock()
	a, ok := m.allowance(key)
	if !ok {
		return ledger.Allowance{}, ledger.ErrNotFound
	}
	return a, nil
}

// EachAllowance implements ledger.Store.
func (m *Memory) EachAllowance(ctx context.Context, f func(ledger.Allowance) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	var live []ledger.Allowance
	for key := range m.allowances {
		if a, ok := m.allowance(key); ok {
			live = append(live, a)
		}
	}
	m.mu.Unlock()
	for _, a := range live {
		if err := f(a); err != nil {
			return err
		}
	}
	return nil
}
