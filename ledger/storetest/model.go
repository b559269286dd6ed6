package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// model is the ledger as simply as it can be said: maps, and ledger.Apply. It keeps nothing through a crash but
// what it is told to.
type model struct {
	rows    map[string]row
	sent    []ledger.Transaction
	wallets map[common.Address]uint64
}

type row struct {
	p     ledger.Payment
	check time.Time // when an open payment is due
	trail int       // the length of its audit trail
}

func newModel() *model {
	return &model{rows: map[string]row{}, wallets: map[common.Address]uint64{}}
}

func (m *model) clone() *model {
	return &model{rows: maps.Clone(m.rows), sent: slices.Clone(m.sent), wallets: maps.Clone(m.wallets)}
}

func (m *model) byAuthorization(id x402.AuthorizationID) (ledger.Payment, bool) {
	for _, r := range m.rows {
		if r.p.AuthorizationID == id {
			return r.p, true
		}
	}
	return ledger.Payment{}, false
}

func (m *model) claim(p ledger.Payment, c ledger.Change, now time.Time) (ledger.Payment, error) {
	if had, ok := m.byAuthorization(p.AuthorizationID); ok {
		return had, ledger.ErrExists
	}
	p, _, err := ledger.Create(p, c, now)
	if err != nil {
		return ledger.Payment{}, err
	}
	m.rows[p.ID] = row{p: p, check: p.CreatedAt, trail: 1}
	return p, nil
}

func (m *model) update(id string, version uint64, changes []ledger.Change, now time.Time) (ledger.Payment, error) {
	r, ok := m.rows[id]
	if !ok {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	if r.p.Version != version {
		return ledger.Payment{}, ledger.ErrConflict
	}
	if slices.ContainsFunc(changes, func(c ledger.Change) bool { return c.Event == ledger.EventSend }) {
		return ledger.Payment{}, ledger.ErrTransition
	}
	open := r.p.Open()
	for _, c := range changes {
		if err := ledger.Apply(&r.p, c, now); err != nil {
			return ledger.Payment{}, err
		}
		r.trail++
	}
	if !open && r.p.Open() {
		r.check = now
	}
	m.rows[id] = r
	return r.p, nil
}

func (m *model) record(t ledger.Transaction, now time.Time) error {
	next, known := m.wallets[t.Wallet]
	replaces := false
	for _, had := range m.sent {
		same := had.Carries(t.Payments)
		if had.Hash == t.Hash {
			if same && had.Wallet == t.Wallet && had.Nonce == t.Nonce {
				return nil
			}
			return ledger.ErrNonce
		}
		if had.Wallet == t.Wallet && had.Nonce == t.Nonce && (same || len(t.Payments) == 0) {
			replaces = true
		}
	}
	advances := !known || t.Nonce == next
	if !advances && !replaces {
		return ledger.ErrNonce
	}
	after := m.clone()
	for _, id := range t.Payments {
		r, ok := after.rows[id]
		if !ok {
			return ledger.ErrNotFound
		}
		if err := ledger.Apply(&r.p, ledger.Change{Event: ledger.EventSend, Transaction: t.Hash}, now); err != nil {
			return err
		}
		r.trail++
		after.rows[id] = r
	}
	if advances {
		after.wallets[t.Wallet] = t.Nonce + 1
	}
	t.CreatedAt = now.UTC().Truncate(time.Microsecond)
	after.sent = append(after.sent, t)
	*m = *after
	return nil
}

func (m *model) advance(wallet common.Address, to uint64) {
	m.wallets[wallet] = max(m.wallets[wallet], to)
}

// due lists what a lease may give, all of it: of payments equally long due the order is free.
func (m *model) due(now time.Time) []row {
	var got []row
	for _, r := range m.rows {
		if r.p.Open() && !r.p.Held(now) && !r.check.After(now) {
			got = append(got, r)
		}
	}
	slices.SortFunc(got, func(a, b row) int { return a.check.Compare(b.check) })
	return got
}

func (m *model) putOff(id string, until time.Time) {
	r := m.rows[id]
	r.check = until.Truncate(time.Microsecond)
	m.rows[id] = r
}

// list gives the payments that keep says, oldest first and by id where they are of one age.
func (m *model) list(keep func(ledger.Payment) bool) []ledger.Payment {
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

// sameOutcome compares a store's error with the model's.
func sameOutcome(got, want error) error {
	for _, known := range []error{
		ledger.ErrTransition, ledger.ErrFence, ledger.ErrConflict, ledger.ErrNotFound, ledger.ErrExists, ledger.ErrNonce,
	} {
		if errors.Is(want, known) {
			if !errors.Is(got, known) {
				return fmt.Errorf("error %v, want %v", got, want)
			}
			return nil
		}
	}
	if got != nil {
		return fmt.Errorf("error %w, want none", got)
	}
	return nil
}
