package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// An allowance is a string that allow.lua describes. Beside the time in it, it ends by itself where the server's clock counts. Its
// numbers are longer than those of the scripts, so it is reckoned here and stored by compare-and-set.

func allowanceValue(a *ledger.Allowance, token string) string {
	e := encoder{b: append([]byte(token), digits(a.ExpiresAt.UnixMicro())...)}
	e.time(a.CreatedAt)
	e.bytes(a.Limit.Bytes())
	e.bytes(a.Used.Bytes())
	return string(e.b)
}

// parseAllowance reads what allowanceValue made; zero if there is nothing.
func parseAllowance(key common.Hash, v string) (a ledger.Allowance, err error) {
	if v == "" {
		return a, nil
	}
	d := decoder{b: []byte(v)}
	d.raw(tokenLength)
	until, err := strconv.ParseInt(string(d.raw(checkWidth)), 10, 64)
	a.Key, a.ExpiresAt, a.CreatedAt = key, time.UnixMicro(until).UTC(), d.time()
	a.Limit.SetBytes(d.bytes())
	a.Used.SetBytes(d.bytes())
	if d.end() != nil || err != nil {
		return ledger.Allowance{}, fmt.Errorf("%w: the allowance %s", errDamaged, key)
	}
	return a, nil
}

// allowanceTries is how often an allowance is read again that others change at the same moment. One of those who compete always
// gets through.
const allowanceTries = 500

// errContended: so many draw of one allowance that this one never got its turn.
var errContended = errors.New("ledger/redis: an allowance keeps changing")

// changeAllowance stores what step makes of an allowance, reading it again whenever somebody was faster. An attempt of which it is
// not known whether it was made, and that others have written over since, is an error that says so: it must not be made twice.
func (s *Store) changeAllowance(ctx context.Context, key common.Hash, step func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error)) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	texts, err := s.kept(ctx, s.keys.allowance, []common.Hash{key})
	if err != nil {
		return err
	}
	expected := texts[0]
	for range allowanceTries {
		c, doubt, err := s.tryAllowance(ctx, key, expected, step)
		switch {
		case err != nil:
			return s.unlessIncomplete(ctx, err)
		case c == nil: // nothing to store
			return s.complete(ctx)
		case c.what() == "OK":
			return nil
		case c.what() == "INCOMPLETE":
			return ledger.ErrIncomplete
		case c.what() != "CHANGED":
			return c.unexpected()
		case doubt:
			return fmt.Errorf("%w: others have changed the allowance since", ErrUnanswered)
		}
		expected = c.text(1)
	}
	return errContended
}

// tryAllowance makes one attempt. doubt: it may have been made though its answer says that it was not.
func (s *Store) tryAllowance(
	ctx context.Context, key common.Hash, expected string, step func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error),
) (c *call, doubt bool, err error) {
	had, err := parseAllowance(key, expected)
	if err != nil {
		return nil, false, err
	}
	part, name := s.keys.allowance(key)
	token := newToken()
	err = s.dated(ctx, func(now time.Time) ([]*call, error) {
		doubt = doubt || c != nil && c.sent
		c = nil
		next, changed, err := step(had, now)
		if err != nil || !changed {
			return nil, err
		}
		c = writing("allow", []string{s.keys.part(part, floorKey), name, s.keys.part(part, usedUpKey)},
			string(key[:]), expected, allowanceValue(&next, token), digits(next.ExpiresAt.UnixMicro()), s.ending(next.ExpiresAt), flag(false))
		return []*call{c}, nil
	})
	return c, doubt || c != nil && c.sent, err
}

// Draw implements ledger.Store.
func (s *Store) Draw(ctx context.Context, d ledger.Draw) (units uint256.Int, a ledger.Allowance, err error) {
	err = s.changeAllowance(ctx, d.Key, func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error) {
		a, units = d.Take(had, now)
		return a, !units.IsZero(), nil
	})
	if err != nil {
		return uint256.Int{}, ledger.Allowance{}, err
	}
	return units, a, nil
}

// Return implements ledger.Store.
func (s *Store) Return(ctx context.Context, key common.Hash, created time.Time, n uint256.Int) error {
	return s.changeAllowance(ctx, key, func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error) {
		return had.GiveBack(created, n, now)
	})
}

// Allowance implements ledger.Store.
func (s *Store) Allowance(ctx context.Context, key common.Hash) (ledger.Allowance, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Allowance{}, err
	}
	defer s.leave()
	got, err := s.allowances(ctx, key)
	if err != nil {
		return ledger.Allowance{}, err
	}
	if len(got) == 0 {
		return ledger.Allowance{}, ledger.ErrNotFound
	}
	return got[0], nil
}

// allowances reads those that have not expired.
func (s *Store) allowances(ctx context.Context, keys ...common.Hash) ([]ledger.Allowance, error) {
	texts, err := s.kept(ctx, s.keys.allowance, keys)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	var got []ledger.Allowance
	for i, key := range keys {
		a, err := parseAllowance(key, texts[i])
		if err != nil {
			return nil, err
		}
		if a.Live(now) {
			got = append(got, a)
		}
	}
	return got, nil
}

// EachAllowance implements ledger.Store.
func (s *Store) EachAllowance(ctx context.Context, f func(ledger.Allowance) error) error {
	return eachKept(ctx, s, usedUpKey, s.allowances, f)
}

func (s *Store) importAllowance(ctx context.Context, a *ledger.Allowance) error {
	part, name := s.keys.allowance(a.Key)
	token := newToken()
	var c *call
	err := s.datedNow(ctx, func(time.Time) *call {
		c = writing("allow", []string{s.keys.part(part, floorKey), name, s.keys.part(part, usedUpKey)},
			string(a.Key[:]), "", allowanceValue(a, token), digits(a.ExpiresAt.UnixMicro()), s.ending(a.ExpiresAt), flag(true))
		return c
	})
	if err != nil || c.what() == "OK" {
		return err
	}
	had, err := parseAllowance(a.Key, c.text(1))
	if err != nil {
		return err
	}
	if !same(had, *a) {
		return fmt.Errorf("%w: the allowance %s is there with other contents", ledger.ErrConflict, a.Key)
	}
	return nil
}
