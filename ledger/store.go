package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Store keeps payments. Every store passes the suite ledger/storetest.
//
// Every change is a compare-and-set on the payment's version and appends its audit entry in the same
// atomic, durable step: when a call returns nil, a crash can no longer undo it. The store's clock, not
// the caller's, dates changes and judges holds. All methods are safe for concurrent use.
//
// A context's error (context.Canceled, context.DeadlineExceeded) and the errors of this package say that the
// call changed nothing. Any other error of a call that writes leaves open whether it did: read again.
// After Close every call fails, with an error that wraps ErrClosed.
type Store interface {
	// Claim creates p as claimed (its facets, version and times are set by the store; p.ID must be
	// set) under a hold. An authorization that is known already gives the payment that has it and
	// an error wrapping ErrExists. c.Event is EventClaim, whatever it says.
	Claim(ctx context.Context, p Payment, c Change) (Payment, error)
	// Payment reads by id; ErrNotFound.
	Payment(ctx context.Context, id string) (Payment, error)
	// ByAuthorization reads by what is unique on chain; ErrNotFound.
	ByAuthorization(ctx context.Context, id x402.AuthorizationID) (Payment, error)
	// Unserved lists payments of payer for a route that were not served (see Payment.Unserved): claimed,
	// settling or settled, and neither delivered nor given up nor to be refunded; oldest first, at most limit.
	Unserved(ctx context.Context, payer common.Address, route string, limit int) ([]Payment, error)
	// LivePlans lists the delivered payments of payer for plans that end after now; the one that
	// ends last comes first.
	LivePlans(ctx context.Context, payer common.Address, limit int) ([]Payment, error)
	// Update makes the changes, in order and all or none, on the payment id if its version is still
	// version. Errors: ErrNotFound, ErrConflict, and what Apply returns; EventSend is Record's alone
	// (ErrTransition).
	Update(ctx context.Context, id string, version uint64, changes ...Change) (Payment, error)

	// Nonce is the next nonce of a wallet that has recorded a transaction (or was advanced); known is
	// false otherwise.
	Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error)
	// Record stores a signed transaction before it is broadcast, moves each of its payments to
	// settling and, when it carries the wallet's next nonce (or its first, which may be any), advances that; all or
	// none. One that carries a nonce used before replaces what was recorded there and advances nothing: it must
	// carry the same payments, in any order, or none (a nonce that is freed by a transfer to oneself). The same
	// hash again is a success that changes nothing. t.CreatedAt is set by the store; no payment may be named twice.
	// Errors: ErrNonce (a gap, or taken by a transaction for other payments), and, of the payments,
	// ErrNotFound and ErrTransition (it is neither claimed nor settling).
	Record(ctx context.Context, t Transaction, actor string) error
	// AdvanceNonce raises the next nonce of a wallet to at least to, for a wallet whose account on chain
	// is ahead because it was used elsewhere. It never lowers it.
	AdvanceNonce(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error
	// Transactions lists what was recorded for a payment, oldest first.
	Transactions(ctx context.Context, paymentID string) ([]Transaction, error)

	// Lease hands out open payments that are due (no live hold, not looked at by another), at most limit,
	// and hides each from other callers for ttl; the longest due first. A new payment is due as soon as its
	// hold ends, and so is one that opens again. It changes no payment.
	Lease(ctx context.Context, limit int, ttl time.Duration) ([]Payment, error)
	// Recheck makes an open payment due again after the given time: how a leaseholder that has
	// nothing more to do now gives it back. A payment that is no longer open stays as it is; ErrNotFound.
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

// Carries reports whether t carries just the payments ids, in any order.
func (t *Transaction) Carries(ids []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(t.Payments)), slices.Sorted(slices.Values(ids)))
}
