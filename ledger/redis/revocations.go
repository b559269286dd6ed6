package redis

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Revocations are two sorted sets, ids by their numbers and by when they end, and the last number, all in one slot: so a number is seen
// only after all below it.

func (k keys) revoked() string        { return k.prefix + ":{a}:revoked" }
func (k keys) lapses() string         { return k.prefix + ":{a}:lapses" }
func (k keys) lastRevocation() string { return k.prefix + ":{a}:lastrevoked" }

func (s *Store) revocation(id string, until time.Time, imported bool) *call {
	k := s.keys
	return writing("revoke", []string{k.revoked(), k.revoked(), k.lapses(), k.meta(), k.lastRevocation()}, id, micros(until), flag(imported))
}

// Revoke implements ledger.Store.
func (s *Store) Revoke(ctx context.Context, id string, until time.Time) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	c := s.revocation(id, until, false)
	if err := s.one(ctx, c); err != nil {
		return err
	}
	switch c.what() {
	case "OK":
		return nil
	case "INCOMPLETE":
		return ledger.ErrIncomplete
	}
	return c.unexpected()
}

// Revoked implements ledger.Store.
func (s *Store) Revoked(ctx context.Context, after uint64, limit int) ([]ledger.Revocation, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	const most = 1 << 53 // what a score holds
	if limit <= 0 || after > most {
		return nil, nil
	}
	c := reading("revoked", []string{s.keys.revoked(), s.keys.revoked(), s.keys.lapses()},
		strconv.FormatUint(after, 10), strconv.Itoa(limit))
	if err := s.one(ctx, c); err != nil {
		return nil, err
	}
	list := c.texts(1)
	var got []ledger.Revocation
	for i := 0; i+2 < len(list); i += 3 {
		number, err := strconv.ParseFloat(list[i+1], 64)
		until, err2 := strconv.ParseFloat(list[i+2], 64)
		if err != nil || err2 != nil || number < 1 || number > most || math.Abs(until) > most {
			return nil, fmt.Errorf("%w: the revocation of %q", errDamaged, list[i])
		}
		got = append(got, ledger.Revocation{Number: uint64(number), ID: list[i], Until: time.UnixMicro(int64(until)).UTC()})
	}
	return got, nil
}

func (s *Store) importRevocation(ctx context.Context, r *ledger.Revocation) error {
	c := s.revocation(r.ID, r.Until, true)
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if c.what() != "OK" {
		return fmt.Errorf("%w: the revocation of %s is there with another end", ledger.ErrConflict, r.ID)
	}
	return nil
}

// lapse removes revocations that ended long ago.
func (s *Store) lapse(ctx context.Context, limit int) (int, error) {
	k := s.keys
	c := writing("lapse", []string{k.revoked(), k.revoked(), k.lapses(), k.meta()},
		micros(s.clock.now().Add(-ledger.RevocationGrace)), strconv.Itoa(limit))
	if err := s.one(ctx, c); err != nil {
		return 0, err
	}
	if c.what() == "INCOMPLETE" {
		return 0, ledger.ErrIncomplete
	}
	if len(c.reply) < 2 {
		return 0, c.unexpected()
	}
	n, _ := c.reply[1].(int64)
	return int(n), nil
}
