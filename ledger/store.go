package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Store keeps payments. Every store passes the suite ledger/storetest.
//
// Every change is a compare-and-set on the payment's version and appends its audit entry in the same
// atomic, durable step: when a call returns nil, a crash can no longer undo it. The store's clock, not
// the caller's, dates changes and judges holds, so that callers on several machines agree. All methods are safe for
// concurrent use, by any number of processes where the store can be reached by several.
//
// A context's error (context.Canceled, context.DeadlineExceeded) and the errors of this package say that the
// call changed nothing. Any other error of a call that writes leaves open whether it did: read again.
// While the ledger is being copied into, every call that writes fails with ErrIncomplete: see Books.Import.
// After Close every call fails, with an error that wraps ErrClosed.
type Store interface {
	Payments
	Nonces
	Leases
	Reservations
	Allowances
	Objects
	Books

	// Now is the store's clock as it was last heard, carried on by the local one: good for deciding how long to
	// wait, never for deciding who may write. It does no I/O.
	Now() time.Time
	// Ping answers nil when a claim could be written now.
	Ping(ctx context.Context) error
	// Close waits for what is under way and closes the store.
	Close() error
}

// Payments are what a request needs of a Store.
type Payments interface {
	// Claim creates p as claimed (its facets, version and times are set by the store) under a hold. p.ID must have been
	// made by NewID for p.Payer. An authorization that is known already gives the payment that has it and
	// an error wrapping ErrExists. c.Event may be EventImport, which creates p in quarantine; else it
	// is EventClaim, whatever it says.
	Claim(ctx context.Context, p Payment, c Change) (Payment, error)
	// Payment reads by id; ErrNotFound.
	Payment(ctx context.Context, id string) (Payment, error)
	// ByAuthorization reads by what is unique on chain; ErrNotFound.
	ByAuthorization(ctx context.Context, id x402.AuthorizationID) (Payment, error)
	// Unserved lists the payments that were not served (see Payment.Unserved) and are like the given one: the same
	// payer, chain, asset and amount, and the same route, plan and host of the binding; oldest first, at most limit.
	Unserved(ctx context.Context, like Payment, limit int) ([]Payment, error)
	// LivePlans lists the delivered payments of payer for plans of a route on a host that end after now; the one that
	// ends last comes first.
	LivePlans(ctx context.Context, payer common.Address, route, host string, limit int) ([]Payment, error)
	// Update makes the changes, in order and all or none, on the payment id if its version is still
	// version. Errors: ErrNotFound, ErrConflict, and what Apply returns; EventSend is Record's alone
	// (ErrTransition).
	Update(ctx context.Context, id string, version uint64, changes ...Change) (Payment, error)
	// Audit is the trail of a payment, oldest first; ErrNotFound.
	Audit(ctx context.Context, id string) ([]Entry, error)
}

// Nonces are what wallets need of a Store.
type Nonces interface {
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
}

// Leases share out the work that one instance must do.
type Leases interface {
	// Lease hands out open payments that are due (no live hold, not looked at by another), at most limit,
	// and hides each from other callers for ttl; the longest due first. A new payment is due as soon as its
	// hold ends, and so is one that opens again. It changes no payment.
	Lease(ctx context.Context, limit int, ttl time.Duration) ([]Payment, error)
	// Recheck makes an open payment due again after the given time: how a leaseholder that has
	// nothing more to do now gives it back. A payment that is no longer open stays as it is; ErrNotFound.
	Recheck(ctx context.Context, id string, after time.Duration) error
}

// Transaction is a signed transaction that we made, stored before anybody could see it.
type Transaction struct {
	ChainID uint64         `json:"chain_id"`
	Wallet  common.Address `json:"wallet"`
	Nonce   uint64         `json:"nonce"`
	Hash    common.Hash    `json:"hash"`
	// Raw is the signed transaction, ready for eth_sendRawTransaction.
	Raw hexutil.Bytes `json:"raw"`
	// Payments are the ids of the payments that it carries, in their order.
	Payments  []string  `json:"payments,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// Carries reports whether t carries just the payments ids, in any order.
func (t *Transaction) Carries(ids []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(t.Payments)), slices.Sorted(slices.Values(ids)))
}
