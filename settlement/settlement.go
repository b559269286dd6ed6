// Package settlement moves money on chain and finds out what happened to it. It does not know the
// ledger's rules: it reports outcomes, and the paywall writes them.
package settlement

import (
	"context"
	"errors"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Intent is a payment as a settler sees it.
type Intent struct {
	// Payment is the id of the ledger's payment; empty before the claim (Check).
	Payment string
	Network x402.Network
	// Authorization is what the payer signed; To, Value and Asset were checked against our offer.
	Authorization x402.Authorization
	// Signature is 65 bytes of an account without code, or whatever a contract wallet accepts.
	// Resolve needs none.
	Signature []byte
	// Proven: the payer's own key has made Signature, as x402.Payload.Identify found. It spares a settler to find that out again,
	// and no more: it decides how the transfer is sent, and the chain whether it is made.
	Proven bool
	// ClaimBlock is the head at which Check saw the authorization unused. Only a transfer in a later
	// block counts.
	ClaimBlock uint64
	// Finality is how deep the transfer must lie before Settle and Resolve call it settled.
	Finality Finality
	// Again: that a transaction of it has reverted is not the end of it. Settle then sends another one, if the transfer would be made now: for
	// payments of our own, which wait until they come through.
	Again bool
	// Exchange is what a facilitator needs besides. Settle has it; Check and Resolve need none.
	Exchange *Exchange
}

// Status is what is known of a settlement. The zero value is Unknown, so that forgetting to decide is safe.
type Status int

// The three outcomes. Unknown is never reported to a payer as "not paid".
const (
	Unknown Status = iota
	Settled
	Failed
)

// String gives the word for logs and metrics.
func (s Status) String() string {
	switch s {
	case Settled:
		return "settled"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// Outcome says what happened to the money of an Intent.
type Outcome struct {
	Status Status
	// Transaction, Block and BlockHash hold the transfer (Settled), or the transaction that reverted
	// (Failed, if one was mined), or the one under way (Unknown, if one was recorded).
	Transaction common.Hash
	Block       uint64
	BlockHash   common.Hash
	// Reason is the protocol's code for Failed, such as x402.ReasonInsufficientBalance.
	Reason x402.Reason
	// Final: the settling block is safe (Settled), or the authorization can never execute again (Failed).
	Final bool
	// Wait is how long it may take until a transfer that is on the chain is as deep as demanded (Unknown; then Block and
	// BlockHash tell where it is); 0: nothing is known of a transfer.
	Wait time.Duration
	// Err says why the outcome is unknown, or details why it failed; for logs, not for clients.
	Err error
}

// ErrUnavailable says that the chain or the settler can't be asked now; nothing was charged by this call, and the
// same authorization may be tried again.
var ErrUnavailable = errors.New("settlement: the chain can't be reached")

// Settler settles payments on one network. Every implementation passes the suite in
// settlement/settlementtest. All methods are safe for concurrent use and for calling twice.
type Settler interface {
	// Check judges, without cost and before the claim, whether in would settle now: a simulation on
	// chain that also judges the signatures of contract wallets. head is the block to use as
	// ClaimBlock: the authorization was unused after it. A payment that would fail gives an *x402.Error
	// with the protocol's reason; a chain that does not answer an error that wraps ErrUnavailable.
	Check(ctx context.Context, in Intent) (head uint64, err error)
	// Settle makes the transfer of a claimed payment and waits until its outcome is known or ctx ends
	// (then: Unknown). What it sends is recorded in the journal before it is broadcast. A payment
	// whose transaction is recorded already gets no second one while that can still be mined. While it waits for a transfer to
	// be as deep as demanded, it keeps nothing that others need; one that a reorganization takes back is made again.
	Settle(ctx context.Context, in Intent) Outcome
	// Resolve finds out what happened to a claimed payment, whoever moved it: the receipts of every
	// hash recorded for it, then the token's logs. It may broadcast recorded transactions again and makes
	// no new one. Unknown without Err means: not yet, or not as deep as demanded (Outcome.Wait). It does not wait.
	Resolve(ctx context.Context, in Intent) Outcome
	// Ready answers nil when payments can be settled now: the chain answers and is the configured
	// one, and the wallet has gas.
	Ready(ctx context.Context) error
}

// Balancer is a Settler that can tell what an account has of the network's asset, in atomic units, on the newest block. Payments
// are served before they settle only where that is known.
type Balancer interface {
	TokenBalance(ctx context.Context, owner common.Address) (uint256.Int, error)
}

// Tracer is a Settler that finds transfers whose payer is not known.
type Tracer interface {
	// Payers are those who have made the payment in, whose From is not known: the amount to the payee, in a block after the claim, by an
	// authorization with its nonce.
	Payers(ctx context.Context, in Intent) ([]common.Address, error)
}

// Owner is a Settler that makes its transactions itself, from wallets of the operator's.
type Owner interface {
	// Wallets are their addresses; none while they are not known yet.
	Wallets() []common.Address
}

// Transaction is a signed transaction of ours.
type Transaction struct {
	ChainID uint64
	Wallet  common.Address
	Nonce   uint64
	Hash    common.Hash
	Raw     []byte
	// Payments are the ids of the payments that it carries.
	Payments  []string
	CreatedAt time.Time
}

// Errors of a Journal that a settler acts on.
var (
	// ErrNonce: the nonce was taken meanwhile; nothing was recorded. Ask again and sign again.
	ErrNonce = errors.New("settlement: the wallet's nonce is taken")
	// ErrNotClaimed: a payment of the transaction is no longer to be settled; nothing was recorded.
	ErrNotClaimed = errors.New("settlement: the payment is not to be settled")
)

// Journal is where a wallet writes its signed transactions before anybody can see them; the ledger is one.
type Journal interface {
	// Nonce is the next nonce of a wallet that has recorded before.
	Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error)
	// Record stores t, durable when it returns, and advances the nonce in the same step. ErrNonce, ErrNotClaimed.
	Record(ctx context.Context, t Transaction) error
	// Advance raises the next nonce to at least to: the chain has seen transactions of the wallet that
	// the journal does not know.
	Advance(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error
	// Transactions lists what was recorded for a payment, oldest first.
	Transactions(ctx context.Context, payment string) ([]Transaction, error)
}
