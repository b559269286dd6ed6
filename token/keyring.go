package token

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// Keyring is the key that signs, those that will, and those that still verify. When a key begins and ends to do so stands in the ring, so
// that all who have the same ring change keys at the same time and need not hear of each other then. It is safe for
// concurrent use.
type Keyring struct {
	keys atomic.Pointer[keySet]
}

// keySet never changes; a change of the ring puts another in its place, and with it voids what verifiers have cached.
type keySet struct {
	keys []Key // those that can sign come first, by when they begin to
	byID map[string]Key
	jwks []published
	raw  []byte // as it was stored, if it was
}

// published is a public key as a JWK.
type published struct {
	jwk   json.RawMessage
	until time.Time
}

var (
	// errNotFirst: whoever knows nothing of turns signs with the first key.
	errNotFirst = errors.New("a keyring needs a key that signs, as its first")
	// errNoSigningKey: the ring only verifies.
	errNoSigningKey = errors.New("the keyring has no key that signs")
)

// NewKeyring makes a ring in which the first key signs and all verify.
func NewKeyring(keys ...Key) (*Keyring, error) {
	if len(keys) == 0 || keys[0].sign == nil || !keys[0].until.IsZero() {
		return nil, errNotFirst
	}
	return newKeyring(keys)
}

// NewVerifyingKeyring makes a ring that signs nothing: an upstream's.
func NewVerifyingKeyring(keys ...Key) (*Keyring, error) {
	keys = slices.Clone(keys)
	for i := range keys {
		keys[i].sign = nil
	}
	return newKeyring(keys)
}

func newKeyring(keys []Key) (*Keyring, error) {
	set, err := newKeySet(keys)
	if err != nil {
		return nil, err
	}
	r := new(Keyring)
	r.keys.Store(set)
	return r, nil
}

func newKeySet(keys []Key) (*keySet, error) {
	set := &keySet{keys: slices.Clone(keys), byID: make(map[string]Key, len(keys))}
	slices.SortStableFunc(set.keys, byTurn)
	for _, k := range set.keys {
		if k.verify == nil {
			return nil, errors.New("a keyring takes no empty key")
		}
		if _, twice := set.byID[k.id]; twice {
			return nil, fmt.Errorf("the token key %s is given twice", k.id)
		}
		set.byID[k.id] = k
		if k.isSecret() {
			continue
		}
		jwk, err := marshalJWK(k)
		if err != nil {
			return nil, err
		}
		set.jwks = append(set.jwks, published{jwk, k.until})
	}
	return set, nil
}

// byTurn puts keys that can sign before those that can't, and orders them by when they begin to; the others by when they end, the last
// first.
func byTurn(a, b Key) int {
	signs := func(k Key) int {
		if k.sign != nil {
			return 0
		}
		return 1
	}
	if c := cmp.Compare(signs(a), signs(b)); c != 0 {
		return c
	}
	if a.sign != nil {
		return a.from.Compare(b.from)
	}
	return b.until.Compare(a.until)
}

// signing is the place of the key that signs at now: of those that have begun to, the one that began last. Whose clock is behind those
// times signs with the one that begins first. It is -1 if there is none.
func (s *keySet) signing(now time.Time) int {
	at := -1
	for i, k := range s.keys {
		if k.sign == nil || at >= 0 && (k.from.After(now) || !k.from.After(s.keys[at].from)) {
			continue
		}
		at = i
	}
	return at
}

// SigningKey is the key that signs at now; a ring that only verifies has an empty one.
func (r *Keyring) SigningKey(now time.Time) Key {
	s := r.keys.Load()
	if at := s.signing(now); at >= 0 {
		return s.keys[at]
	}
	return Key{}
}

// Keys are all keys: those that can sign by when they begin to, then those that only verify, the last to end first.
func (r *Keyring) Keys() []Key { return slices.Clone(r.keys.Load().keys) }

// Replace puts the keys of another ring in the place of those of r.
func (r *Keyring) Replace(other *Keyring) { r.keys.Store(other.keys.Load()) }

// JWKS is the ring's public keys as a JWK Set (RFC 7517, RFC 8037): those that sign, those that will, and those that still verify at now. A
// secret never shows in it.
func (r *Keyring) JWKS(now time.Time) []byte {
	var b bytes.Buffer
	b.WriteString(`{"keys":[`)
	first := true
	for _, p := range r.keys.Load().jwks {
		if !p.until.IsZero() && !now.Before(p.until) {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.Write(p.jwk)
	}
	b.WriteString("]}")
	return b.Bytes()
}

func marshalJWK(k Key) (json.RawMessage, error) {
	jwk, err := jwkset.NewJWKFromKey(k.verify, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{
		ALG: jwkset.ALG(k.Algorithm()), KID: k.id, USE: jwkset.UseSig,
	}})
	if err != nil {
		return nil, fmt.Errorf("publishing the token key %s: %w", k.id, err)
	}
	b, err := json.Marshal(jwk.Marshal())
	if err != nil {
		return nil, fmt.Errorf("publishing the token key %s: %w", k.id, err)
	}
	return b, nil
}

// ParseJWKS reads the public keys of a JWK Set that are for signatures of a kind that this package makes; it skips all
// others, as RFC 7517 section 5 wants it. What a key may be used for follows from what it is, and its alg must say the same.
func ParseJWKS(data []byte) ([]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("reading a JWK Set: %w", err)
	}
	if set.Keys == nil {
		return nil, errors.New("reading a JWK Set: it has no keys member")
	}
	var keys []Key
	for _, raw := range set.Keys {
		var m jwkset.JWKMarshal
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("reading a JWK: %w", err)
		}
		if m.KTY == jwkset.KtyOct || m.USE != "" && m.USE != jwkset.UseSig || m.KID == "" {
			continue
		}
		jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		k, err := newPublicKey(jwk.Key())
		if err != nil || k.method == nil || m.ALG != "" && m.ALG.String() != k.Algorithm() {
			continue
		}
		k.id = m.KID
		keys = append(keys, k)
	}
	return keys, nil
}
