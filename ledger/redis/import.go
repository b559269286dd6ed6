package redis

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// How far the copy into this ledger has come; kept in one key beside a mark in each part.
const (
	copyBegun   = "begun"   // the parts are being marked
	copyRunning = "running" // all parts are marked
	copyEnding  = "ending"  // all is there, the marks are being removed
)

// Import implements ledger.Store. A record counts with its payment, which is written last.
func (s *Store) Import(ctx context.Context, part ledger.Part) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if err := s.beginCopy(ctx); err != nil {
		return err
	}
	for i := range part.Records {
		if err := s.importRecord(ctx, &part.Records[i]); err != nil {
			return err
		}
	}
	for i := range part.Wallets {
		if err := s.importWallet(ctx, &part.Wallets[i]); err != nil {
			return err
		}
	}
	for i := range part.Reservations {
		if err := s.importReservation(ctx, &part.Reservations[i]); err != nil {
			return err
		}
	}
	for i := range part.Revocations {
		if err := s.importRevocation(ctx, &part.Revocations[i]); err != nil {
			return err
		}
	}
	for i := range part.Allowances {
		if err := s.importAllowance(ctx, &part.Allowances[i]); err != nil {
			return err
		}
	}
	for i := range part.Objects {
		if err := s.importObject(ctx, &part.Objects[i]); err != nil {
			return err
		}
	}
	for _, a := range part.Anchors {
		if err := s.importAnchor(ctx, a); err != nil {
			return err
		}
	}
	if part.Complete {
		return s.endCopy(ctx)
	}
	return nil
}

// beginCopy makes an empty store incomplete, and finds one that is.
func (s *Store) beginCopy(ctx context.Context) error {
	c := reading("get", []string{s.keys.meta(), s.keys.meta()})
	if err := s.one(ctx, c); err != nil {
		return err
	}
	state := append(c.texts(1), "")[0]
	switch state {
	case copyRunning:
		return nil
	case copyEnding: // whoever completed it died before the last mark was gone
		if err := s.unmarkParts(ctx); err != nil {
			return err
		}
		state = ""
	}
	if err := s.unused(ctx, "empty"); err != nil {
		return s.abandoned(ctx, state, err)
	}
	c = writing("put", []string{s.keys.meta(), s.keys.meta(), s.keys.wallets(), s.keys.anchors(), s.keys.revoked()}, state, copyBegun)
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if c.what() != "OK" {
		return fmt.Errorf("%w: the ledger is in use", ledger.ErrExists)
	}
	if err := s.unused(ctx, "begin"); err != nil {
		return s.abandoned(ctx, copyBegun, err) // somebody began to use it at this moment
	}
	return s.moveOn(ctx, copyBegun, copyRunning)
}

// abandoned gives up a copy that has not come further than to mark parts of a ledger that is in use, as err says: the marks
// would keep it from being used for ever.
func (s *Store) abandoned(ctx context.Context, state string, err error) error {
	if state == copyBegun && errors.Is(err, ledger.ErrExists) {
		return errors.Join(err, s.unmarkParts(ctx))
	}
	return err
}

// moveOn says how far the copy has come, unless another has said something else.
func (s *Store) moveOn(ctx context.Context, from, to string) error {
	c := writing("put", []string{s.keys.meta(), s.keys.meta()}, from, to)
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if c.what() != "OK" {
		return fmt.Errorf("%w: another copy into the ledger was given up or completed", ledger.ErrExists)
	}
	return nil
}

// unused runs a script on all parts that finds whether they are in use.
func (s *Store) unused(ctx context.Context, name string) error {
	var calls []*call
	for p := range partitions {
		calls = append(calls, writing(name, []string{
			s.keys.part(p, floorKey), s.keys.part(p, importKey), s.keys.part(p, bornKey), s.keys.part(p, expiryKey),
			s.keys.part(p, usedUpKey), s.keys.part(p, kindsKey),
		}))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	for _, c := range calls {
		if c.what() != "OK" {
			return fmt.Errorf("%w: the ledger is in use", ledger.ErrExists)
		}
	}
	return nil
}

// endCopy makes the ledger ready for use. From the first mark that goes, payments may be claimed: no import may come after it.
func (s *Store) endCopy(ctx context.Context) error {
	if err := s.moveOn(ctx, copyRunning, copyEnding); err != nil {
		return err
	}
	return s.unmarkParts(ctx)
}

// complete gives ErrIncomplete while the ledger is being copied into.
func (s *Store) complete(ctx context.Context) error {
	c := reading("get", []string{s.keys.meta(), s.keys.meta()})
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if append(c.texts(1), "")[0] != "" {
		return ledger.ErrIncomplete
	}
	return nil
}

// unlessIncomplete replaces what is wrong with a call, where that is only because half of the ledger is there.
func (s *Store) unlessIncomplete(ctx context.Context, err error) error {
	for _, known := range []error{ledger.ErrNotFound, ledger.ErrConflict, ledger.ErrTransition, ledger.ErrFence, ledger.ErrNonce} {
		if errors.Is(err, known) {
			return cmp.Or(s.complete(ctx), err)
		}
	}
	return err
}

// unmarkParts removes what beginCopy has written.
func (s *Store) unmarkParts(ctx context.Context) error {
	var calls []*call
	for p := range partitions {
		calls = append(calls, writing("remove", []string{s.keys.part(p, floorKey), s.keys.part(p, importKey)}))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	return s.one(ctx, writing("remove", []string{s.keys.meta(), s.keys.meta()}))
}

// same compares what stores give. JSON knows no difference between an empty slice and none.
func same(a, b any) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}

func (s *Store) importRecord(ctx context.Context, r *ledger.Record) error {
	p := r.Payment
	if part, ok := partitionOf(p.ID); !ok || part != partitionOfPayer(p.Payer) {
		return fmt.Errorf("%w: %q is no id for a payment of this payer", ledger.ErrConflict, p.ID)
	}
	token := newToken()
	is, err := importing(r, token)
	if err != nil {
		return err
	}
	for i := range r.Transactions {
		if err := s.importTransaction(ctx, &r.Transactions[i]); err != nil {
			return err
		}
	}
	var c *call
	err = s.datedNow(ctx, func(time.Time) *call {
		c = s.claim(is, r.Trail, true)
		return c
	})
	switch {
	case err != nil:
		return err
	case c.what() == "OK":
		return nil
	}
	had, err := s.records(ctx, []string{short(p.ID)})
	if err != nil {
		return err
	}
	if len(had) == 0 || !same(had[0], r) {
		return fmt.Errorf("%w: payment %s, or its authorization, is there with other contents", ledger.ErrConflict, p.ID)
	}
	return nil
}

// datedNow makes one call.
func (s *Store) datedNow(ctx context.Context, build func(now time.Time) *call) error {
	return s.dated(ctx, func(now time.Time) ([]*call, error) { return []*call{build(now)}, nil })
}

// importing is a record as it will be stored.
func importing(r *ledger.Record, token string) (*stored, error) {
	is := &stored{payment: r.Payment, check: r.Payment.UpdatedAt.UnixMicro()}
	var previous common.Hash
	for i := range r.Trail {
		e := &r.Trail[i]
		if e.Payment != r.Payment.ID || e.Version != uint64(i+1) || e.Previous != previous {
			return nil, fmt.Errorf("%w: payment %s, entry %d", ledger.ErrAudit, r.Payment.ID, i+1)
		}
		previous = e.Hash
		is.trail = appendEntry(is.trail, e, token)
	}
	if len(r.Trail) == 0 || r.Payment.Version != uint64(len(r.Trail)) {
		return nil, fmt.Errorf("%w: payment %s has %d entries", ledger.ErrAudit, r.Payment.ID, len(r.Trail))
	}
	for i := range r.Transactions {
		t := &r.Transactions[i]
		is.refs = append(is.refs, ref{t.ChainID, t.Wallet, t.Hash})
	}
	return is, nil
}

func (s *Store) importTransaction(ctx context.Context, t *ledger.Transaction) error {
	key := s.keys.wallet(t.ChainID, t.Wallet)
	r := ref{t.ChainID, t.Wallet, t.Hash}
	is := sent{*t, newToken(), ""}
	c := writing("wallet", []string{key + ":f", key, s.keys.freed(key)},
		string(t.Hash[:]), is.value(), nonceField(t.Nonce), flag(len(t.Payments) > 0))
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if c.what() == "OK" {
		return nil
	}
	had, err := parseSent(c.text(1), r)
	if err != nil {
		return err
	}
	if !same(had.Transaction, *t) {
		return fmt.Errorf("%w: transaction %s is there with other contents", ledger.ErrConflict, t.Hash)
	}
	return nil
}

func (s *Store) importWallet(ctx context.Context, w *ledger.Wallet) error {
	had, known, err := s.wallet(ctx, w.ChainID, w.Address)
	if err != nil {
		return err
	}
	if known {
		if !same(had, *w) {
			return fmt.Errorf("%w: wallet %s is there with other contents", ledger.ErrConflict, w.Address)
		}
		return nil
	}
	if err := s.introduce(ctx, w.ChainID, w.Address, true); err != nil {
		return err
	}
	for i := range w.Freed {
		if len(w.Freed[i].Payments) > 0 || w.Freed[i].Wallet != w.Address || w.Freed[i].ChainID != w.ChainID {
			return fmt.Errorf("%w: transaction %s is none of wallet %s alone", ledger.ErrConflict, w.Freed[i].Hash, w.Address)
		}
		if err := s.importTransaction(ctx, &w.Freed[i]); err != nil {
			return err
		}
	}
	key := s.keys.wallet(w.ChainID, w.Address)
	c := writing("raise", []string{key + ":f", key}, "", strconv.FormatUint(w.NextNonce, 10))
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if c.what() != "OK" {
		// This call's own write, if its answer was lost, or another's.
		return s.importWallet(ctx, w)
	}
	return nil
}

func (s *Store) importReservation(ctx context.Context, r *ledger.Reservation) error {
	part, name := s.keys.reservation(r.Key)
	token := newToken()
	var c *call
	err := s.datedNow(ctx, func(time.Time) *call {
		c = writing("reserve", []string{s.keys.part(part, floorKey), name, s.keys.part(part, expiryKey)},
			string(r.Key[:]), reservationValue(r, token), "", token, digits(r.ExpiresAt.UnixMicro()), s.ending(r.ExpiresAt), flag(true))
		return c
	})
	if err != nil || c.what() == "OK" {
		return err
	}
	had, err := parseReservation(r.Key, c.text(1))
	if err != nil {
		return err
	}
	if !same(had, *r) {
		return fmt.Errorf("%w: the reservation %s is there with other contents", ledger.ErrConflict, r.Key)
	}
	return nil
}

func (s *Store) importAnchor(ctx context.Context, a ledger.Anchor) error {
	if a.Sequence > 0 && a.Sequence < 1<<53 {
		at := int64(a.Sequence) - 1
		had, err := s.anchors(ctx, at, at)
		if err != nil {
			return err
		}
		if slices.Contains(had, a) {
			return nil
		}
	}
	return s.addAnchor(ctx, a, true)
}
