package redis

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// A reservation is a string that reserve.lua describes. Beside the time in it, it ends by itself where the server's clock counts.

func reservationValue(r *ledger.Reservation, token string) string {
	b := append([]byte(digits(r.ExpiresAt.UnixMicro())), answered(r.Answer)...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Payment)))
	b = append(b, r.Payment...)
	b = append(b, digits(r.CreatedAt.UnixMicro())...)
	b = append(b, r.Fingerprint[:]...)
	b = append(b, token...)
	return string(append(b, r.Answer...))
}

// answered tells an empty answer from none.
func answered(answer []byte) string {
	if answer == nil {
		return "n"
	}
	return "a"
}

func parseReservation(key common.Hash, v string) (ledger.Reservation, error) {
	d := decoder{b: []byte(v)}
	r := ledger.Reservation{Key: key}
	expires, answered := string(d.raw(checkWidth)), d.byte()
	if n := d.raw(2); n != nil {
		r.Payment = string(d.raw(uint64(binary.BigEndian.Uint16(n))))
	}
	created := string(d.raw(checkWidth))
	d.fixed(r.Fingerprint[:])
	d.raw(tokenLength)
	until, err := strconv.ParseInt(expires, 10, 64)
	since, err2 := strconv.ParseInt(created, 10, 64)
	if d.err != nil || err != nil || err2 != nil {
		return ledger.Reservation{}, fmt.Errorf("%w: the reservation %s", errDamaged, key)
	}
	r.ExpiresAt, r.CreatedAt = time.UnixMicro(until).UTC(), time.UnixMicro(since).UTC()
	if answered == 'a' {
		r.Answer = append([]byte{}, d.b...)
	}
	return r, nil
}

// ending is when a key of Redis ends at the time t; empty where the server's clock does not count.
func (s *Store) ending(t time.Time) string {
	if s.clock.fixed != nil {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli()+1, 10)
}

// until is the time ttl after now, as far as it can be told in 18 digits.
func until(now time.Time, ttl time.Duration) time.Time {
	return time.UnixMicro(later(now, ttl)).UTC()
}

// Reserve implements ledger.Store.
func (s *Store) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Reservation{}, err
	}
	defer s.leave()
	if len(r.Payment) > 1<<15 {
		return ledger.Reservation{}, fmt.Errorf("ledger/redis: a payment's id of %d bytes", len(r.Payment))
	}
	part, name := s.keys.reservation(r.Key)
	token := newToken()
	var c *call
	err := s.dated(ctx, func(now time.Time) ([]*call, error) {
		r.CreatedAt, r.ExpiresAt = now, until(now, ttl)
		c = writing("reserve", []string{s.keys.part(part, floorKey), name, s.keys.part(part, expiryKey)},
			string(r.Key[:]), reservationValue(&r, token), over, token, digits(r.ExpiresAt.UnixMicro()), s.ending(r.ExpiresAt), flag(false))
		return []*call{c}, nil
	})
	switch {
	case err != nil:
		return ledger.Reservation{}, err
	case c.what() == "OK":
		return r, nil
	case c.what() == "INCOMPLETE":
		return ledger.Reservation{}, ledger.ErrIncomplete
	case c.what() != "EXISTS":
		return ledger.Reservation{}, c.unexpected()
	}
	had, err := parseReservation(r.Key, c.text(1))
	if err != nil {
		return ledger.Reservation{}, err
	}
	return had, fmt.Errorf("%w: it is reserved for payment %s", ledger.ErrExists, had.Payment)
}

// Reservation implements ledger.Store.
func (s *Store) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Reservation{}, err
	}
	defer s.leave()
	got, err := s.reservations(ctx, key)
	if err != nil {
		return ledger.Reservation{}, err
	}
	if len(got) == 0 {
		return ledger.Reservation{}, ledger.ErrNotFound
	}
	return got[0], nil
}

// reservations reads those that have not expired.
func (s *Store) reservations(ctx context.Context, keys ...common.Hash) ([]ledger.Reservation, error) {
	texts, err := s.kept(ctx, s.keys.reservation, keys)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	var got []ledger.Reservation
	for i, key := range keys {
		if texts[i] == "" {
			continue
		}
		r, err := parseReservation(key, texts[i])
		if err != nil {
			return nil, err
		}
		if r.ExpiresAt.After(now) {
			got = append(got, r)
		}
	}
	return got, nil
}

// KeepAnswer implements ledger.Store.
func (s *Store) KeepAnswer(ctx context.Context, key common.Hash, payment string, answer []byte, ttl time.Duration) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	part, name := s.keys.reservation(key)
	var c *call
	err := s.dated(ctx, func(now time.Time) ([]*call, error) {
		expires := until(now, ttl)
		c = writing("answer", []string{s.keys.part(part, floorKey), name, s.keys.part(part, expiryKey)},
			string(key[:]), payment, string(answer), digits(expires.UnixMicro()), s.ending(expires), answered(answer))
		return []*call{c}, nil
	})
	switch {
	case err != nil:
		return err
	case c.what() == "INCOMPLETE":
		return ledger.ErrIncomplete
	case c.what() == "GONE":
		return fmt.Errorf("%w: nothing is reserved so", ledger.ErrNotFound)
	}
	return nil
}

// EachReservation implements ledger.Store.
func (s *Store) EachReservation(ctx context.Context, f func(ledger.Reservation) error) error {
	return eachKept(ctx, s, expiryKey, s.reservations, f)
}
