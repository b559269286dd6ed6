package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

const (
	// DefaultLead is how long a new key is shown before it signs: twice as long as upstreams are told that they may keep the JWK Set.
	DefaultLead = 10 * time.Minute
	// MinLead is the least: every instance has read the ring by then, some times over.
	MinLead = 10 * time.Second
	// FollowEvery is how often whoever follows a ring reads it.
	FollowEvery = 2 * time.Second

	// ringMargin is by how much instances may change keys at different times: their clocks differ.
	ringMargin = time.Minute
	// unknownLife is what the longest token of a key may be whose ring does not say.
	unknownLife = 31 * 24 * time.Hour
	// leastLife is of the shortest tokens that a key signs, those for upstreams.
	leastLife = 2 * time.Minute
	// endedFor is how long a key that has ended stays in the ring, to be seen.
	endedFor = 24 * time.Hour

	rsaBits = 3072
)

// What a ring refuses. Tell them apart with errors.Is.
var (
	// ErrRotating: a new key waits for its turn.
	ErrRotating = errors.New("a new key waits for its turn already")
	// ErrKeySigns: the key signs, so it can't be retired.
	ErrKeySigns = errors.New("the key signs: rotate first")
	// ErrNoKey: no key of the ring has that id, or more than one.
	ErrNoKey = errors.New("the ring has no such key")
	// ErrCost: tokens that were sold would stop working. It is done when it is forced.
	ErrCost = errors.New("tokens that were sold would stop working")
	// ErrRotation: the rotation is not well formed.
	ErrRotation = errors.New("it can't be rotated so")
)

// Rotation says how a ring goes on to a new key.
type Rotation struct {
	// Algorithm of the new key: EdDSA, ES256 or RS256. Default: EdDSA.
	Algorithm string
	// Lead is how long the key is shown before it signs. Default: DefaultLead; MinLead at least.
	Lead time.Duration
	// Overlap is how long the old key then still verifies. Nil: until the last token that it signs has expired, by the longest
	// that the ring knows of.
	Overlap *time.Duration
	// Force accepts an overlap that is shorter than that.
	Force bool
}

// Rotate adds a new key to the ring in s, which signs after the lead, and gives the old one its end. Whoever follows the ring has the new
// key long before that.
func Rotate(ctx context.Context, s Storage, r Rotation, now time.Time) (*Keyring, error) {
	if r.Lead == 0 {
		r.Lead = DefaultLead
	}
	if r.Lead < MinLead {
		return nil, fmt.Errorf("%w: instances need %s to hear of a new key, a lead of %s is too short", ErrRotation, MinLead, r.Lead)
	}
	if r.Overlap != nil && *r.Overlap < 0 {
		return nil, fmt.Errorf("%w: an overlap can't be negative", ErrRotation)
	}
	next, err := generate(r.Algorithm)
	if err != nil {
		return nil, err
	}
	return change(ctx, s, func(keys []Key) ([]Key, error) { return r.turn(keys, next, now) })
}

func generate(algorithm string) (Key, error) {
	switch algorithm {
	case "", "EdDSA":
		return GenerateKey(rand.Reader)
	case "ES256":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return Key{}, fmt.Errorf("making a token key: %w", err)
		}
		return newKey(k)
	case "RS256":
		k, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return Key{}, fmt.Errorf("making a token key: %w", err)
		}
		return newKey(k)
	}
	return Key{}, fmt.Errorf("%w: a new key can be for EdDSA, ES256 or RS256, not for %q", ErrRotation, algorithm)
}

// turn adds next to keys, and ends the one before it.
func (r Rotation) turn(keys []Key, next Key, now time.Time) ([]Key, error) {
	at, err := signingOf(keys, now)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.sign != nil && k.from.After(now) {
			return nil, fmt.Errorf("%w: %s signs from %s", ErrRotating, k.id, k.from.UTC().Format(time.RFC3339))
		}
	}
	old := &keys[at]
	// Whole seconds: that is how times are stored.
	next.created, next.from, next.longest = now.Truncate(time.Second), now.Add(r.Lead+time.Second-1).Truncate(time.Second), old.longest
	needs := old.life()
	overlap := needs + ringMargin
	if r.Overlap != nil {
		overlap = *r.Overlap
	}
	if overlap < needs && !r.Force {
		return nil, fmt.Errorf("%w: the longest that %s signs lives for %s, and the overlap is %s", ErrCost, old.id, needs, overlap)
	}
	old.until = next.from.Add(overlap + Leeway)
	return append(keys, next), nil
}

// life is that of the longest token that k signs, as far as it is known.
func (k Key) life() time.Duration {
	if k.longest == 0 {
		return unknownLife
	}
	return max(k.longest, leastLife)
}

func signingOf(keys []Key, now time.Time) (int, error) {
	if len(keys) == 0 {
		return 0, fmt.Errorf("there is no ring in this storage: %w", fs.ErrNotExist)
	}
	at := (&keySet{keys: keys}).signing(now)
	if at < 0 {
		return 0, errNoSigningKey
	}
	return at, nil
}

// Retire ends a key of the ring in s before its time: one that waits for its turn is removed, so that the old one goes on; one that
// verifies ends now, if that is forced, since what it has signed and not expired is refused from then on. id may be the beginning of an id.
// A key that signs is never retired.
func Retire(ctx context.Context, s Storage, id string, force bool, now time.Time) (*Keyring, error) {
	return change(ctx, s, func(keys []Key) ([]Key, error) { return retire(keys, id, force, now) })
}

func retire(keys []Key, id string, force bool, now time.Time) ([]Key, error) {
	signing, err := signingOf(keys, now)
	if err != nil {
		return nil, err
	}
	at := -1
	for i, k := range keys {
		if id == "" || len(id) > len(k.id) || k.id[:len(id)] != id {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("%w: %q is the beginning of more than one id", ErrNoKey, id)
		}
		at = i
	}
	if at < 0 {
		return nil, fmt.Errorf("%w: %q", ErrNoKey, id)
	}
	k := &keys[at]
	switch {
	case at == signing:
		return nil, fmt.Errorf("%w: %s", ErrKeySigns, k.id)
	case k.sign != nil && k.from.After(now) && k.from.Before(now.Add(MinLead)):
		return nil, fmt.Errorf("%w: %s does so in a moment", ErrKeySigns, k.id)
	case k.sign != nil && k.from.After(now): // it has signed nothing, and whoever signs now goes on as if it had never been
		keys[signing].until = time.Time{}
		return slices.Delete(keys, at, at+1), nil
	case k.expired(now):
		return nil, nil
	case !force:
		return nil, fmt.Errorf("%w: %s verifies until %s, when the last of them has expired", ErrCost, k.id, k.until.UTC().Format(time.RFC3339))
	}
	k.sign, k.until = nil, now.Truncate(time.Second)
	return keys, nil
}

// Lengthen notes in the ring in s how long the tokens live that its keys sign from now on, if that is longer than was known: so long a key
// must verify after its turn. It is to be called before such tokens are issued.
func Lengthen(ctx context.Context, s Storage, longest time.Duration, now time.Time) (*Keyring, error) {
	return change(ctx, s, func(keys []Key) ([]Key, error) { return lengthen(keys, longest, now) })
}

// lengthen gives nil if there is nothing to be done.
func lengthen(keys []Key, longest time.Duration, now time.Time) ([]Key, error) {
	at, err := signingOf(keys, now.Add(-ringMargin)) // whose clock is behind may still sign with it
	if err != nil {
		return nil, err
	}
	longest = max(longest, leastLife).Truncate(time.Second)
	first, changed := keys[at].from, false
	for i := range keys {
		k := &keys[i]
		if k.sign == nil || k.from.Before(first) || k.longest >= longest {
			continue
		}
		if next, ok := after(keys, k.from); ok && next.Add(k.life()).Before(k.until) { // its end was not forced to be too early
			k.until = later(k.until, next.Add(longest+ringMargin+Leeway))
		}
		k.longest, changed = longest, true
	}
	if !changed {
		return nil, nil
	}
	return keys, nil
}

// after is when the key begins to sign that comes after the one that began at from.
func after(keys []Key, from time.Time) (next time.Time, ok bool) {
	for _, k := range keys {
		if k.sign != nil && k.from.After(from) && (!ok || k.from.Before(next)) {
			next, ok = k.from, true
		}
	}
	return next, ok
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Lacks reports whether Lengthen would change the ring.
func (r *Keyring) Lacks(longest time.Duration, now time.Time) bool {
	keys, err := lengthen(r.Keys(), longest, now)
	return err == nil && keys != nil
}

// Tidy removes from the ring in s what is of no more use: the private halves of keys whose turn is over, and keys that have ended.
func Tidy(ctx context.Context, s Storage, now time.Time) (*Keyring, error) {
	return change(ctx, s, func(keys []Key) ([]Key, error) { return tidy(keys, now), nil })
}

// Untidy reports whether Tidy would change the ring.
func (r *Keyring) Untidy(now time.Time) bool { return tidy(r.Keys(), now) != nil }

// tidy gives nil if there is nothing to be done.
func tidy(keys []Key, now time.Time) []Key {
	// Instances whose clocks are behind may still sign with the key before.
	at := (&keySet{keys: keys}).signing(now.Add(-ringMargin))
	if at < 0 {
		return nil
	}
	turn, changed := keys[at].from, false
	for i := range keys {
		if k := &keys[i]; k.sign != nil && k.from.Before(turn) && i != at {
			k.sign, changed = nil, true
		}
	}
	n := len(keys)
	keys = slices.DeleteFunc(keys, func(k Key) bool { return k.sign == nil && k.expired(now.Add(-endedFor)) })
	if !changed && len(keys) == n {
		return nil
	}
	return keys
}
