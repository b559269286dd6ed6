package settlement

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Surveyor is a Settler that finds on the chain what it sent and the ledger does not know any more: a store that was
// restored from an older copy, or lost power before its last writes were on disk.
type Surveyor interface {
	// Survey looks for such payments if there is a reason to: q asks for it, or the settler has noticed that the ledger
	// lost something. It is cheap where there is none. What an error cut short is gone on with by the next call.
	Survey(ctx context.Context, q Survey) (Surveyed, error)
}

// Survey says what to look for.
type Survey struct {
	// PayTo is whose payments are looked for.
	PayTo common.Address
	// Back asks to look at the blocks of this time before the head, whether or not anything was noticed; 0: only with a
	// reason.
	Back time.Duration
	// Wallets are gas wallets that were ours, besides the settler's own.
	Wallets []common.Address
	// Known reports whether the ledger has a payment of the authorization.
	Known func(context.Context, x402.AuthorizationID) (bool, error)
	// Found takes a payment that is not known and was sent by a wallet of ours.
	Found func(context.Context, Find) error
}

// Find is a transfer by an authorization, as calldata and logs tell of it alike.
type Find struct {
	Authorization x402.Authorization
	Transaction   common.Hash
	Block         uint64
	BlockHash     common.Hash
}

// Surveyed says what was done.
type Surveyed struct {
	// From and To are the blocks that were looked at; To is 0 if there was no reason to look.
	From, To uint64
	// Payments is how many authorizations paid PayTo in them, and Found how many of those were handed out.
	Payments, Found int
	// Others are those that the ledger does not know, and that nobody can say to be ours: sent by a stranger, or by a
	// call that we would not make.
	Others int
}
