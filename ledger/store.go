package ledger

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Store keeps payments. Every store passes the suite ledger/storetest.
//
// Every change is a compare-and-set on the payment's version and appends its audit entry in the same
// atomic, durable step: when a call returns nil, a crash can no longer undo it. The store's clock, not
// the caller's, dates changes and judges holds. All methods are safe for concurrent use.
type Store interface {
	// Claim creates p as claimed (its facets, version and times are set by the store; p.ID must be
	// set) under a hold. An authorization that is known already gives the payment that has it and
	// an error wrapping ErrExists.
	Claim(ctx context.Context, p Payment, c Change) (Payment, error)
	// Payment reads by id; ErrNotFound.
	Payment(ctx context.Context, id string) (Payment, error)
	// ByAuthorization reads by what is unique on chain; ErrNotFound.
	ByAuthorization(ctx context.Context, id x402.AuthorizationID) (Payment, error)
	// Unserved lists payments of payer for a route that were not served: claimed, settling, or settled
	// and neither delivered nor to be refunded; oldest first, at most limit.
	Unserved(ctx context.Context, payer common.Address, route string, limit int) ([]Payment, error)
	// LivePlans lists the delivered payments of payer for plans that end after now.
	LivePlans(ctx context.Context, payer common.Address, limit int) ([]Payment, error)
	// Update makes the changes, in order and all or none, on the payment id if its version is still
	// version. Errors: ErrNotFound, ErrConflict, and what Apply returns.
	Update(ctx context.Context, id string, version uint64, changes ...Change) (Payment, error)

	// Nonce is the next nonce of a wallet that has recorded a transaction; known is false otherwise.
	Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error)
	// Record stores a signed transaction before it is broadcast, moves each of its payments to
	// settling and, when it carries the wallet's next nonce (or its first), advances that; all or none.
	// A transaction that replaces a recorded one has the same nonce and another hash, and advances nothing.
	// Errors: ErrNonce (a gap, or taken by a transaction for other payments), and those of Update.
	Record(ctx context.Context, t Transaction, actor string) error
	// Transactions lists what was recorded for a payment, oldest first.
	Transactions(ctx context.Context, paymentID string) ([]Transaction, error)

	// Lease hands out open payments that are due (no live hold, not looked at by another), at most limit,
	// and hides each from other callers for ttl. It changes no payment.
	Lease(ctx context.Context, limit int, ttl time.Duration) ([]Payment, error)
	// Recheck makes an open payment due again after the given time: how a leaseholder that has
	// nothing more to do now gives it back.
	Recheck(ctx context.Context, id string, after time.Duration) error

	// Audit is the trail of a payment, oldest first.
	Audit(ctx context.Context, id string) ([]Entry, error)
	// Counts gives the number of payments by state; states without payments are absent.
	Counts(ctx context.Context) (map[State]int64, error)
	// Ping answers nil when a claim could be written now.
	Ping(ctx context.Context) error
	// Close waits for what is under way and closes the store.
	Close() error
}

// Transaction is a signed transaction that we made, stored before anybody could see it.
type Transaction struct {
	ChainID uint64
	Wallet  common.Address
	Nonce   uint64
	Hash    common.Hash
	// Raw is the signed transaction, ready for eth_sendRawTransaction.
	Raw []byte
	// Payments are the ids of the payments that it carries, in their order.
	Payments  []string
	CreatedAt time.Time
}
