package ledger

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Books are a Store as its operator sees it: what can be listed, exported, anchored, thinned out and moved. None
// of it is on a request's way.
type Books interface {
	Revocations

	// List gives payments, newest first: by CreatedAt, then by ID, both descending. What one payer owes (StateOwed) is found at a
	// cost that does not grow with what it has paid: that is asked on the way of requests.
	List(ctx context.Context, q Query) ([]Payment, error)
	// Counts gives the number of payments by state; states without payments are absent.
	Counts(ctx context.Context) (map[State]int64, error)

	// Entries gives the audit entries of all payments that come after the mark and were made no later than until, in the
	// order of their marks, at most limit.
	Entries(ctx context.Context, after Mark, until time.Time, limit int) ([]Entry, error)
	// Anchors gives the anchors with a sequence number above after, in order, at most limit.
	Anchors(ctx context.Context, after uint64, limit int) ([]Anchor, error)
	// LastAnchor is the newest one; ErrNotFound if there is none.
	LastAnchor(ctx context.Context) (Anchor, error)
	// AddAnchor appends a; ErrConflict unless a follows the last one (see Anchor.Follows). From then on the store's clock
	// gives entries only times after a.Until, even if the machine's clock is turned back.
	AddAnchor(ctx context.Context, a Anchor) error

	// Sweep removes what is no longer needed, at most limit things, and tells how many: reservations, allowances and objects that have
	// expired, revocations that ended RevocationGrace ago, and, where keep is not zero, what closed payments that have not changed for keep left
	// behind. Closed payments are those that are not Open, of which no refund is pending or failed, and that nobody owes (see
	// Payment.Closed). SQL stores move the trail and the raw transactions to an archive, where Audit, Records, Entries and Transactions
	// still find them; the payment stays, since it is the claim. Redis forgets the payment, and its claim a day after the authorization
	// has ended.
	Sweep(ctx context.Context, keep time.Duration, limit int) (int, error)

	// Records gives payments with all that belongs to them, in ascending order of their ids, those whose id is greater
	// than after, at most limit.
	Records(ctx context.Context, after string, limit int) ([]Record, error)
	// Wallets gives all wallets, by chain and address.
	Wallets(ctx context.Context) ([]Wallet, error)
	// EachReservation calls f with every reservation that has not expired, in any order, until f fails.
	EachReservation(ctx context.Context, f func(Reservation) error) error
	// EachAllowance calls f with every allowance that has not expired, in any order, until f fails.
	EachAllowance(ctx context.Context, f func(Allowance) error) error
	// EachObject calls f with every object that has not expired, of whatever kind, in any order, until f fails.
	EachObject(ctx context.Context, f func(Object) error) error
	// Import writes what another store exported, as it is, all or none of each record. What is there already must be equal, else
	// ErrConflict; so it can be repeated. The first import marks an empty store as incomplete: until an import with Complete
	// every other call that writes (Claim, Update, Record, AdvanceNonce, Lease, Recheck, Reserve, KeepAnswer, Revoke, Draw, Return,
	// PutObject, DeleteObject, AddAnchor, Sweep, Ping) fails with ErrIncomplete and changes nothing, so that nobody works on half of a ledger, whose copy may fail
	// and begin again; what reads works. A store that is not empty and not incomplete is in use and refuses (ErrExists).
	Import(ctx context.Context, part Part) error
}

// Query selects payments for List.
type Query struct {
	// State and Payer, where they are not zero, must match.
	State State
	Payer common.Address
	// Before, where it is not zero, is the last payment of the page before (its CreatedAt and ID).
	Before Mark
	// Limit is at most how many; none if it is zero.
	Limit int
}

// Mark is a place in a list that is ordered by time.
type Mark struct {
	At      time.Time `json:"at"`
	Payment string    `json:"payment"`
	// Version tells entries of one payment apart; zero in lists of payments.
	Version uint64 `json:"version,omitempty"`
}

// Mark is where e stands among all entries: they are ordered by time, payment and version.
func (e *Entry) Mark() Mark { return Mark{At: e.At, Payment: e.Payment, Version: e.Version} }

// Record is a payment with all that belongs to it.
type Record struct {
	Payment Payment `json:"payment"`
	Trail   []Entry `json:"trail"`
	// Transactions are those recorded for the payment, oldest first, whole: each names all payments that it carries.
	Transactions []Transaction `json:"transactions,omitempty"`
}

// Wallet is a gas wallet as a store knows it.
type Wallet struct {
	ChainID   uint64         `json:"chain_id"`
	Address   common.Address `json:"address"`
	NextNonce uint64         `json:"next_nonce"`
	// Freed are its recorded transactions that carry no payment, oldest first.
	Freed []Transaction `json:"freed,omitempty"`
}

// Part is a piece of a ledger on its way from one store to another.
type Part struct {
	Records      []Record      `json:"records,omitempty"`
	Wallets      []Wallet      `json:"wallets,omitempty"`
	Reservations []Reservation `json:"reservations,omitempty"`
	// Revocations get numbers of this store, in their order.
	Revocations []Revocation `json:"revocations,omitempty"`
	Allowances  []Allowance  `json:"allowances,omitempty"`
	Objects     []Object     `json:"objects,omitempty"`
	// Anchors are in order, and follow those imported before.
	Anchors []Anchor `json:"anchors,omitempty"`
	// Complete says that this is the last part: the store is then ready for use.
	Complete bool `json:"complete,omitempty"`
}
