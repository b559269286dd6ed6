package ledger

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Reservations say that a thing that may be bought once is being bought, or was, with a certain payment: a request
// under an idempotency key, a plan that one payer wants once. Who wants it claims a payment first, which costs
// nothing, and then reserves: of all who compete on any number of instances one has its payment reserved, and the others
// learn which it is and give theirs up.
type Reservations interface {
	// Reserve stores r for ttl if its key is free, has expired, or is reserved for the payment over (empty: nobody's).
	// Otherwise it gives the reservation that is there, and an error wrapping ErrExists. r.Answer is stored too;
	// r.CreatedAt and r.ExpiresAt are set by the store.
	Reserve(ctx context.Context, r Reservation, over string, ttl time.Duration) (Reservation, error)
	// Reservation reads by key; ErrNotFound if there is none, or it has expired.
	Reservation(ctx context.Context, key common.Hash) (Reservation, error)
	// KeepAnswer stores the answer to what was reserved by key for the payment; the reservation then expires after ttl from
	// now. If an answer is stored already, that one and its time stay, which is no error. ErrNotFound if the key is free, has expired or is reserved for another payment.
	KeepAnswer(ctx context.Context, key common.Hash, payment string, answer []byte, ttl time.Duration) error
}

// Reservation binds a key to a payment.
type Reservation struct {
	// Key is a hash of what is reserved and for whom; who can't compute it can't ask.
	Key common.Hash `json:"key"`
	// Fingerprint is a hash of what else must be equal for two requests to be the same; zero where nothing must.
	Fingerprint common.Hash `json:"fingerprint,omitzero"`
	// Payment is the id of the payment that it is reserved for.
	Payment string `json:"payment"`
	// Answer is what was answered, in the form of whoever stored it; nil if nothing is stored.
	Answer    []byte    `json:"answer,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}
