package sqlite

import (
	"context"
	"errors"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

var errPending = errors.ErrUnsupported

func (s *Store) Now() time.Time { return s.now() }
func (s *Store) Reserve(context.Context, ledger.Reservation, string, time.Duration) (r ledger.Reservation, err error) {
	return r, errPending
}
func (s *Store) Reservation(context.Context, common.Hash) (r ledger.Reservation, err error) {
	return r, errPending
}
func (s *Store) KeepAnswer(context.Context, common.Hash, string, []byte, time.Duration) error {
	return errPending
}
func (s *Store) List(context.Context, ledger.Query) ([]ledger.Payment, error) { return nil, errPending }
func (s *Store) Entries(context.Context, ledger.Mark, time.Time, int) ([]ledger.Entry, error) {
	return nil, errPending
}
func (s *Store) Anchors(context.Context, uint64, int) ([]ledger.Anchor, error) { return nil, errPending }
func (s *Store) LastAnchor(context.Context) (a ledger.Anchor, err error)       { return a, errPending }
func (s *Store) AddAnchor(context.Context, ledger.Anchor) error                { return errPending }
func (s *Store) Sweep(context.Context, time.Duration, int) (int, error)        { return 0, errPending }
func (s *Store) Records(context.Context, string, int) ([]ledger.Record, error) { return nil, errPending }
func (s *Store) Wallets(context.Context) ([]ledger.Wallet, error)              { return nil, errPending }
func (s *Store) EachReservation(context.Context, func(ledger.Reservation) error) error {
	return errPending
}
func (s *Store) Import(context.Context, ledger.Part) error { return errPending }
