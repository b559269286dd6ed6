package token

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// Keyring is the key that signs and those that still verify. It is safe for concurrent use.
type Keyring struct {
	keys atomic.Pointer[keySet]
}

// keySet never changes; a rotation puts another in its place, and with it voids what verifiers have cached.
type keySet struct {
	signing Key
	byID    map[string]Key
	jwks    []byte
}

// NewKeyring makes a ring in which the first key signs and all verify.
func NewKeyring(keys ...Key) (*Keyring, error) {
	set, err := newKeySet(keys)
	if err != nil {
		return nil, err
	}
	r := new(Keyring)
	r.keys.Store(set)
	return r, nil
}

func newKeySet(keys []Key) (*keySet, error) {
	if len(keys) == 0 || keys[0].sign == nil || !keys[0].until.IsZero() {
		return nil, errors.New("a keyring needs a key that signs, as its first")
	}
	set := &keySet{signing: keys[0], byID: make(map[string]Key, len(keys))}
	for _, k := range keys {
		if k.verify == nil {
			return nil, errors.New("a keyring takes no empty key")
		}
		if _, twice := set.byID[k.id]; twice {
			return nil, fmt.Errorf("the token key %s is given twice", k.id)
		}
		set.byID[k.id] = k
	}
	var err error
	set.jwks, err = marshalJWKS(keys)
	return set, err
}

// SigningKey is the key that signs.
func (r *Keyring) SigningKey() Key { return r.keys.Load().signing }

// Keys are all keys: the one that signs, then the others by id.
func (r *Keyring) Keys() []Key { return r.keys.Load().sorted() }

func (s *keySet) sorted() []Key {
	keys := make([]Key, 0, len(s.byID))
	for id, k := range s.byID {
		if id != s.signing.id {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Compare(a.id, b.id) })
	return slices.Insert(keys, 0, s.signing)
}

// Rotate makes next the key that signs. The one before it verifies until the given time; keys whose time was over at
// now are dropped.
func (r *Keyring) Rotate(next Key, until, now time.Time) error {
	for {
		old := r.keys.Load()
		keys := []Key{next}
		for _, k := range old.sorted() {
			if k.id == old.signing.id {
				k = k.Retired(until)
			}
			if !k.expired(now) {
				keys = append(keys, k)
			}
		}
		set, err := newKeySet(keys)
		if err != nil {
			return fmt.Errorf("rotating the token key: %w", err)
		}
		if r.keys.CompareAndSwap(old, set) {
			return nil
		}
	}
}

// JWKS is the ring's public keys as a JWK Set (RFC 7517, RFC 8037). A secret never shows in it.
func (r *Keyring) JWKS() ([]byte, error) { return slices.Clone(r.keys.Load().jwks), nil }

func marshalJWKS(keys []Key) ([]byte, error) {
	set := jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{}}
	for _, k := range keys {
		if k.isSecret() {
			continue
		}
		jwk, err := jwkset.NewJWKFromKey(k.verify, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{
			ALG: jwkset.ALG(k.Algorithm()), KID: k.id, USE: jwkset.UseSig,
		}})
		if err != nil {
			return nil, fmt.Errorf("publishing the token key %s: %w", k.id, err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	b, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("publishing the token keys: %w", err)
	}
	return b, nil
}
