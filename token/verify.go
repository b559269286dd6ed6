package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Verifier checks tokens of one kind from one issuer. It remembers those it has checked, up to a bound, so that a token that
// comes with every request costs a look-up. It is safe for concurrent use.
type Verifier struct {
	ring     *Keyring
	kind     Kind
	issuer   string
	parser   *jwt.Parser
	verified *cache
	revoked  *Revoked
}

// DefaultCacheSize is how many verified tokens a Verifier remembers unless told otherwise.
const DefaultCacheSize = 1 << 14

// NewVerifier makes a verifier of tokens of the given kind, made by the issuer of that URL with a key of ring. It
// remembers about size verified tokens; 0 is DefaultCacheSize.
func NewVerifier(ring *Keyring, kind Kind, issuer string, size int) (*Verifier, error) {
	if ring == nil || issuer == "" || kind.Type() == "" {
		return nil, errors.New("a token verifier needs a keyring, a kind and an issuer")
	}
	if size <= 0 {
		size = DefaultCacheSize
	}
	return &Verifier{
		ring: ring, kind: kind, issuer: issuer, verified: newCache(size), revoked: NewRevoked(),
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{"EdDSA", "ES256", "RS256", "HS256"}),
			jwt.WithStrictDecoding(),
			jwt.WithoutClaimsValidation(), // it needs the caller's clock: see checkClaims
		),
	}, nil
}

// Heed makes v refuse what r says was revoked, in place of what it knew before. It is to be called before v is used.
func (v *Verifier) Heed(r *Revoked) { v.revoked = r }

// Verify gives the claims of a token that is good at now. The claims are shared: don't change them. Every other token
// gives one of this package's errors.
func (v *Verifier) Verify(token string, now time.Time) (*Claims, error) {
	set := v.ring.keys.Load()
	if c := v.verified.get(token, set, v.revoked, now); c != nil {
		return c, nil
	}
	if !wellFormed(token) {
		return nil, ErrMalformed
	}
	var (
		claims Claims
		used   Key
	)
	_, err := v.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		var err error
		used, err = v.selectKey(set, t, now)
		return used.verify, err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", class(err), err)
	}
	if err := v.checkClaims(&claims, now); err != nil {
		return nil, fmt.Errorf("%w: %w", class(err), err)
	}
	version := v.revoked.version.Load()
	if v.revoked.Has(claims.ID) {
		return nil, ErrRevoked
	}
	v.verified.put(token, &claims, set, version, used.until, now)
	return &claims, nil
}

// wellFormed lets through three parts of the base64url alphabet. Decoders skip line ends, and so would give one token many
// spellings.
func wellFormed(token string) bool {
	if len(token) > MaxSize {
		return false
	}
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		case c == '.':
			dots++
		default:
			return false
		}
	}
	return dots == 2
}

// selectKey takes from the header what it needs and no more: the key id selects; algorithm and type must be what the key and
// the kind say. A header that asks for more (crit, jwk, jku, x5u, zip) isn't ours.
func (v *Verifier) selectKey(set *keySet, t *jwt.Token, now time.Time) (Key, error) {
	kid, _ := t.Header["kid"].(string)
	typ, _ := t.Header["typ"].(string)
	if kid == "" || typ == "" || len(t.Header) != 3 {
		return Key{}, ErrMalformed
	}
	key, ok := set.byID[kid]
	switch {
	case !ok || key.expired(now):
		return Key{}, ErrUnknownKey
	case t.Method.Alg() != key.Algorithm():
		return Key{}, ErrBadSignature
	case typ != v.kind.Type():
		return Key{}, ErrWrongKind
	}
	return key, nil
}

func (v *Verifier) checkClaims(c *Claims, now time.Time) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return jwt.NewValidator(
		jwt.WithTimeFunc(func() time.Time { return now }),
		jwt.WithLeeway(Leeway),
		jwt.WithIssuedAt(),
		jwt.WithExpirationRequired(),
		jwt.WithIssuer(v.issuer),
		jwt.WithAudience(v.kind.audience(v.issuer)),
	).Validate(c)
}

// class finds the one of our errors that says best what is wrong: who it is from before how old it is.
func class(err error) error {
	for _, c := range [...]struct{ is, class error }{
		{ErrMalformed, ErrMalformed},
		{ErrUnknownKey, ErrUnknownKey},
		{ErrWrongKind, ErrWrongKind},
		{ErrBadSignature, ErrBadSignature},
		{jwt.ErrTokenSignatureInvalid, ErrBadSignature},
		{jwt.ErrTokenInvalidIssuer, ErrWrongAudience},
		{jwt.ErrTokenInvalidAudience, ErrWrongAudience},
		{jwt.ErrTokenExpired, ErrExpired},
		{jwt.ErrTokenNotValidYet, ErrNotYetValid},
		{jwt.ErrTokenUsedBeforeIssued, ErrNotYetValid},
	} {
		if errors.Is(err, c.is) {
			return c.class
		}
	}
	return ErrMalformed
}
