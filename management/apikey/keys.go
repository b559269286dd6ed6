package apikey

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Store is what keys need of a ledger's store.
type Store interface {
	Object(ctx context.Context, kind, id string) (ledger.Object, error)
	PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error)
	DeleteObject(ctx context.Context, kind, id string, version int64) error
	Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error)
	Now() time.Time
}

const (
	kind = "api_key"
	// DefaultOverlap is how long a rotated key stays good beside its successor, if nothing is said.
	DefaultOverlap = 7 * 24 * time.Hour
	// MaxOverlap is how long it may stay good at most.
	MaxOverlap = 30 * 24 * time.Hour
	// keep is how long a key that has ended is still known as such.
	keep = 90 * 24 * time.Hour
	// usedEvery is how exact LastUsedAt is: a key in use costs one write in this time.
	usedEvery = time.Minute
	// tries is how often a change is tried against others.
	tries = 10
)

// Keys are the keys in a store. The store's clock says what time it is.
type Keys struct {
	Store  Store
	Random io.Reader // crypto/rand's Reader outside of tests
	Log    *slog.Logger
}

// stored is a key as the store has it.
type stored struct {
	Key
	Hash string `json:"hash"` // of the secret, SHA-256
}

// Create makes a key. Its secret is known to nobody but the caller.
func (k *Keys) Create(ctx context.Context, by Grantor, r Request) (Key, Secret, error) {
	if err := r.check(); err != nil {
		return Key{}, Secret{}, err
	}
	if err := by.mayGive(r.Mode, r.Scopes); err != nil {
		return Key{}, Secret{}, err
	}
	key := Key{Label: r.Label, Mode: r.Mode, Scopes: r.Scopes, CreatedBy: by.Actor}
	if r.Life > 0 {
		key.ExpiresAt = k.Store.Now().Add(r.Life)
	}
	key.ExpiresAt = by.until(key.ExpiresAt)
	return k.add(ctx, key)
}

// add gives a new key its secret, and keeps it.
func (k *Keys) add(ctx context.Context, key Key) (Key, Secret, error) {
	secret, err := NewSecret(k.Random, key.Mode)
	if err != nil {
		return Key{}, Secret{}, err
	}
	key.ID, key.Prefix, key.CreatedAt = secret.ID(), secret.Prefix(), k.Store.Now()
	key.trim()
	if err := k.put(ctx, &stored{key, secret.hash()}, 0); err != nil {
		return Key{}, Secret{}, fmt.Errorf("keeping a key: %w", err)
	}
	return key, secret, nil
}

// Authenticate finds the key whose secret somebody shows: ErrInvalid, ErrExpired, ErrRevoked, or the error of a store that can't say.
func (k *Keys) Authenticate(ctx context.Context, shown string) (Key, error) {
	secret, err := ParseSecret(shown)
	if err != nil {
		return Key{}, ErrInvalid
	}
	s, version, err := k.read(ctx, secret.ID())
	if errors.Is(err, ErrNotFound) {
		return Key{}, ErrInvalid
	}
	if err != nil {
		return Key{}, err
	}
	if subtle.ConstantTimeCompare([]byte(s.Hash), []byte(secret.hash())) != 1 {
		return Key{}, ErrInvalid
	}
	now := k.Store.Now()
	if err := s.Good(now); err != nil {
		return s.Key, err
	}
	if now.Sub(s.LastUsedAt) >= usedEvery {
		k.used(ctx, s, version, now)
	}
	return s.Key, nil
}

// used writes down that the key is in use. If that fails, nobody is kept out.
func (k *Keys) used(ctx context.Context, s *stored, version int64, now time.Time) {
	s.LastUsedAt = now
	s.trim()
	if err := k.put(ctx, s, version); err != nil && !errors.Is(err, ledger.ErrConflict) {
		k.Log.WarnContext(ctx, "the last use of an API key can't be written down", slog.String("key", s.ID), slog.Any("error", err))
		return
	}
	if s.Superseded() {
		k.Log.WarnContext(ctx, "an API key that was rotated is still in use", slog.String("key", s.ID), slog.String("successor", s.RotatedTo),
			slog.Time("ends", s.OverlapEndsAt))
	}
}

// Get finds a key by its id; ErrNotFound.
func (k *Keys) Get(ctx context.Context, id string) (Key, error) {
	s, _, err := k.read(ctx, id)
	if err != nil {
		return Key{}, err
	}
	return s.Key, nil
}

// List gives the keys of a mode, or of both if it is empty, in the order of their ids: those after the given one, at most limit.
func (k *Keys) List(ctx context.Context, m Mode, after string, limit int) ([]Key, error) {
	objects, err := k.Store.Objects(ctx, kind, string(m), after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	out := make([]Key, 0, len(objects))
	for i := range objects {
		s, err := decode(&objects[i])
		if err != nil {
			return nil, err
		}
		out = append(out, s.Key)
	}
	return out, nil
}

// Rotate makes a successor of a key: with its mode, label, scopes and life. Until the overlap has passed both are good; with none, which is
// for a key that has leaked, the old one ends now. Errors: ErrNotFound, ErrRotating, ErrExpired and ErrRevoked, ErrWider, ErrRequest.
func (k *Keys) Rotate(ctx context.Context, by Grantor, id string, overlap time.Duration) (predecessor, successor Key, secret Secret, err error) {
	fail := func(err error) (Key, Key, Secret, error) { return Key{}, Key{}, Secret{}, err }
	if overlap < 0 || overlap > MaxOverlap {
		return fail(fmt.Errorf("%w: the overlap must be from 0 to 30 days", ErrRequest))
	}
	old, version, err := k.rotatable(ctx, by, id)
	if err != nil {
		return fail(err)
	}
	next := Key{Label: old.Label, Mode: old.Mode, Scopes: old.Scopes, CreatedBy: by.Actor, RotatedFrom: old.ID}
	if !old.ExpiresAt.IsZero() {
		next.ExpiresAt = k.Store.Now().Add(old.ExpiresAt.Sub(old.CreatedAt))
	}
	next.ExpiresAt = by.until(next.ExpiresAt)
	// The successor comes first: if this ends here, there is one that nobody has the secret of, and the old key is as it was.
	next, secret, err = k.add(ctx, next)
	if err != nil {
		return fail(err)
	}
	for range tries {
		now := k.Store.Now()
		old.RotatedAt, old.RotatedTo, old.OverlapEndsAt = now, next.ID, now.Add(overlap)
		old.trim()
		if err = k.put(ctx, old, version); err == nil {
			return old.Key, next, secret, nil
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return fail(fmt.Errorf("rotating a key: %w", err)) // it may have been done: the successor stays
		}
		if old, version, err = k.rotatable(ctx, by, id); err != nil {
			break
		}
	}
	if del := k.Store.DeleteObject(ctx, kind, next.ID, 1); del != nil {
		k.Log.WarnContext(ctx, "a key that nobody has can't be removed", slog.String("key", next.ID), slog.Any("error", del))
	}
	return fail(err)
}

// rotatable reads a key that may be rotated now.
func (k *Keys) rotatable(ctx context.Context, by Grantor, id string) (*stored, int64, error) {
	s, version, err := k.read(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	if !by.Local && s.Mode != by.Mode {
		return nil, 0, ErrNotFound
	}
	if err := s.Good(k.Store.Now()); err != nil {
		return nil, 0, err
	}
	if s.Superseded() {
		return nil, 0, ErrRotating
	}
	return s, version, by.mayGive(s.Mode, s.Scopes)
}

// Revoke ends a key at once. One that was revoked stays so; ErrNotFound.
func (k *Keys) Revoke(ctx context.Context, by Grantor, id string) (Key, error) {
	for range tries {
		s, version, err := k.read(ctx, id)
		switch {
		case err != nil:
			return Key{}, err
		case !by.Local && s.Mode != by.Mode:
			return Key{}, ErrNotFound
		case !s.RevokedAt.IsZero():
			return s.Key, nil
		}
		s.RevokedAt = k.Store.Now()
		s.trim()
		if err = k.put(ctx, s, version); err == nil {
			return s.Key, nil
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return Key{}, fmt.Errorf("revoking a key: %w", err)
		}
	}
	return Key{}, fmt.Errorf("revoking a key: %w", ledger.ErrConflict)
}

// DueForRotation gives the keys that are good, were not rotated and are older than maxAge, each once over all instances.
func (k *Keys) DueForRotation(ctx context.Context, maxAge time.Duration) ([]Key, error) {
	var due []Key
	for after := ""; ; {
		page, err := k.Store.Objects(ctx, kind, "", after, 100)
		if err != nil || len(page) == 0 {
			return due, err
		}
		after = page[len(page)-1].ID
		now := k.Store.Now()
		for i := range page {
			s, err := decode(&page[i])
			if err != nil {
				return due, err
			}
			if s.Good(now) != nil || s.Superseded() || !s.RotationDueAt.IsZero() || now.Sub(s.CreatedAt) < maxAge {
				continue
			}
			s.RotationDueAt = now
			s.trim()
			if err := k.put(ctx, s, page[i].Version); err == nil {
				due = append(due, s.Key)
			} else if !errors.Is(err, ledger.ErrConflict) { // whoever was faster tells of it, or the next look does
				return due, fmt.Errorf("writing down that a key is old: %w", err)
			}
		}
	}
}

func (k *Keys) read(ctx context.Context, id string) (*stored, int64, error) {
	if !ledger.IsObjectName(kind, id) {
		return nil, 0, ErrNotFound
	}
	o, err := k.Store.Object(ctx, kind, id)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, 0, ErrNotFound
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading a key: %w", err)
	}
	s, err := decode(&o)
	return s, o.Version, err
}

func decode(o *ledger.Object) (*stored, error) {
	s := new(stored)
	if err := json.Unmarshal(o.Body, s); err != nil {
		return nil, fmt.Errorf("apikey: what is kept of a key can't be read: %w", err)
	}
	return s, nil
}

func (k *Keys) put(ctx context.Context, s *stored, version int64) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("apikey: encoding a key: %w", err)
	}
	o := ledger.Object{Kind: kind, ID: s.ID, Group: string(s.Mode), Version: version, Body: body}
	if end := sooner(s.Ends(), s.RevokedAt); !end.IsZero() {
		o.Expires = end.Add(keep)
	}
	_, err = k.Store.PutObject(ctx, o)
	return err
}

// trim leaves times as they read after they were stored.
func (k *Key) trim() {
	for _, t := range [...]*time.Time{
		&k.CreatedAt, &k.ExpiresAt, &k.LastUsedAt, &k.RevokedAt, &k.RotatedAt, &k.OverlapEndsAt, &k.RotationDueAt,
	} {
		*t = t.UTC().Truncate(time.Microsecond)
	}
}
