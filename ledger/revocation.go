package ledger

import (
	"context"
	"time"
)

// Revocations say which access tokens were taken back before their time: a plan that was refunded, or that its seller ended. They
// are numbered in the order in which they can be seen, so that any number of instances can follow them by asking for what
// is new.
type Revocations interface {
	// Revoke takes back the token with this id (its jti, which is a payment's id) until the given time, in whole microseconds, when it
	// ends by itself. Once it has returned nil, every Revoked that begins later tells of it. One that is revoked already stays so; a
	// later end counts, and gives it a new number.
	Revoke(ctx context.Context, id string, until time.Time) error
	// Revoked gives the revocations with a number above after, in the order of their numbers, at most limit. None ever comes in below
	// one that was given. Sweep removes those that ended more than RevocationGrace ago.
	Revoked(ctx context.Context, after uint64, limit int) ([]Revocation, error)
}

// Revocation is a token that was taken back.
type Revocation struct {
	// Number is its place in this store; a copy of the store has others, in the same order.
	Number uint64 `json:"number,omitempty"`
	// ID is the token's.
	ID string `json:"id"`
	// Until is when the token ends by itself.
	Until time.Time `json:"until"`
}

// RevocationGrace is how long a revocation outlives its token: the clocks of those who look at tokens may be behind.
const RevocationGrace = time.Hour
