package token

import "errors"

// What can be wrong with a token. Verify wraps exactly one of these; tell them apart with errors.Is. A token that
// fails with ErrMalformed or ErrUnknownKey isn't ours: it may be the client's own credential for the upstream.
var (
	// ErrMalformed is something that is no token of this package at all: wrong shape, too long, foreign headers.
	ErrMalformed = errors.New("malformed token")
	// ErrUnknownKey is a token whose key id is not, or no longer, in the keyring.
	ErrUnknownKey = errors.New("unknown token key")
	// ErrWrongKind is a token of the other kind: an assertion where an access token is asked for, or the reverse.
	ErrWrongKind = errors.New("wrong kind of token")
	// ErrBadSignature is a token that its key did not sign, or that claims another algorithm than its key's.
	ErrBadSignature = errors.New("bad token signature")
	// ErrWrongAudience is a token of another issuer or for another audience, although signed with our key.
	ErrWrongAudience = errors.New("token issued for somebody else")
	// ErrNotYetValid is a token from the future; the clocks of issuer and verifier may differ by Leeway.
	ErrNotYetValid = errors.New("token not yet valid")
	// ErrExpired is a token whose time is over.
	ErrExpired = errors.New("token expired")
	// ErrRevoked is a token that was taken back, for example by a refund.
	ErrRevoked = errors.New("token revoked")
)
