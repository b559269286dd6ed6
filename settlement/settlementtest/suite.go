// Package settlementtest is the suite that every settlement.Settler passes, on a real chain, and what it is
// made of: payments in every kind of trouble, a journal in memory, and an endpoint that misbehaves.
package settlementtest

import (
	"context"
	"crypto/ecdsa"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Chain is a local chain with an EIP-3009 token, on which the suite may do what it likes. Its blocks come on demand
// only: when there is a transaction, unless it is stalled, and by Commit. Its "safe" block is SafeLag below the head.
type Chain interface {
	URL() string
	Mint(ctx context.Context, to common.Address, amount *uint256.Int) error
	TokenBalance(ctx context.Context, account common.Address) (*uint256.Int, error)
	DeployWallet(ctx context.Context, owner common.Address) (common.Address, error)
	Pause(ctx context.Context) error
	Unpause(ctx context.Context) error
	Commit() error
	Stall()
	Resume()
	AdvanceTime(d time.Duration) error
	// Reorganize replaces the last depth blocks by empty ones; with forget their transactions are gone, else they wait again.
	Reorganize(depth uint64, forget bool) error
	Now(ctx context.Context) (time.Time, error)
}

// SafeLag is how far the chain's "safe" block is behind its head.
const SafeLag = 3

// Setup is what a settler is started with.
type Setup struct {
	// URL is the endpoint.
	URL string
	// Key is the wallet that pays the gas.
	Key     *ecdsa.PrivateKey
	Journal settlement.Journal
}

// Harness is what the suite runs on.
type Harness struct {
	Chain   Chain
	Network x402.Network
	// Account gives the i-th of at least 600 accounts that have gas and at least 100 dollars each.
	Account func(i int) *ecdsa.PrivateKey
	// New starts a settler, which ends with t.
	New func(t testing.TB, s Setup) settlement.Settler

	next atomic.Int64
}

// Fresh is an account that no other case uses.
func (h *Harness) Fresh() *ecdsa.PrivateKey { return h.Account(int(h.next.Add(1) - 1)) }

// Run runs the suite.
func Run(t *testing.T, h *Harness) {
	cases := []struct {
		name string
		run  func(*Case)
	}{
		{"settles", settles},
		{"settles again as it did before", settlesTwice},
		{"refuses a used authorization", refusesUsed},
		{"one transaction for many calls", oneTransaction},
		{"checks share a simulation", sharedCheck},
		{"paid by another hand after the claim", frontRun},
		{"paid by another hand while ours waits", frontRunInPool},
		{"paid by another hand before the claim", frontRunBefore},
		{"cancelled", cancelled},
		{"expired", expires},
		{"not yet valid", notYetValid},
		{"payer without money", withoutMoney},
		{"payer spends the money meanwhile", moneyGone},
		{"payer's money goes while ours waits", moneyGoneInPool},
		{"a payment that waits goes on after a revert", revertedAgain},
		{"wrong signature", wrongSignature},
		{"contract wallet", contractWallet},
		{"token is paused", paused},
		{"chain unreachable before sending", unreachable},
		{"answers get lost", lostAnswers},
		{"chain stalls after the broadcast", stalls},
		{"crash before the broadcast, then Resolve", crashResolve},
		{"crash before the broadcast, then Settle", crashSettle},
		{"expires between record and broadcast", expiresRecorded},
		{"no longer claimed", notClaimed},
		{"two settlers on one wallet", twoSettlers},
		{"one of two settlers dies between record and broadcast", oneOfTwoDies},
		{"two hundred at once", twoHundred},
		{"enough confirmations", confirms},
		{"a safe block", confirmsSafe},
		{"different demands at once", confirmsApart},
		{"not confirmed in time", confirmsLater},
		{"taken back before it is confirmed", reorganized},
		{"taken back and forgotten before it is confirmed", reorganizedAndForgotten},
		{"taken back, and can't be made again", reorganizedAndSpent},
		{"many looked at together", reviews},
		{"payers of one nonce", payersOfNonce},
		{"ready", ready},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) { tc.run(NewCase(t, h)) })
	}
}
