package paywall

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/x402"
)

// bank is a token and its chain as simply as they can be said: each authorization is executed once, by whoever has its signature. What is
// a minute old is safe.
type bank struct {
	now func() time.Time

	mu        sync.Mutex
	block     uint64
	balances  map[common.Address]uint64
	used      map[use]moved
	banned    map[common.Address]bool
	paused    bool
	filled    int                 // so many transfers are refused before the wallet has money, and asked about after it
	crowded   bool                // others take what the refund wallet has between the reading of its balance and the transfer
	seen      []settlement.Intent // all that was ever shown to an endpoint: whoever runs it may execute it
	transfers int
}

type use struct {
	from  common.Address
	nonce common.Hash
}

type moved struct {
	to        common.Address
	amount    uint64
	block     uint64
	at        time.Time
	cancelled bool
}

func newBank(now func() time.Time) *bank {
	return &bank{now: now, block: 100, balances: map[common.Address]uint64{}, used: map[use]moved{}, banned: map[common.Address]bool{}}
}

// move makes a transfer as transferWithAuthorization does; the error is what it would revert with.
func (b *bank) move(a *x402.Authorization) error {
	if err := b.judge(a); err != nil {
		return err
	}
	b.block++
	b.transfers++
	amount := a.Value.Uint64()
	b.balances[a.From] -= amount
	b.balances[a.To] += amount
	b.used[use{a.From, a.Nonce}] = moved{to: a.To, amount: amount, block: b.block, at: b.now()}
	return nil
}

func (b *bank) judge(a *x402.Authorization) error {
	_, used := b.used[use{a.From, a.Nonce}]
	switch {
	case used:
		return x402.Refuse(x402.ReasonNonceUsed, "used")
	case a.ValidBefore.Uint64() <= uint64(b.now().Unix()):
		return x402.Refuse(x402.ReasonValidBefore, "expired")
	case b.paused:
		return x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer: Pausable: paused")
	case b.filled > 0:
		b.filled--
		return x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer: execution reverted")
	case b.banned[a.To] || b.banned[a.From]:
		return x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer: Blacklistable: account is blacklisted")
	case b.crowded:
		return x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer: ERC20: transfer amount exceeds balance")
	case b.balances[a.From] < a.Value.Uint64():
		return x402.Refuse(x402.ReasonInsufficientBalance, "the payer has too little")
	}
	return nil
}

// look notes what an endpoint is shown.
func (b *bank) look(in *settlement.Intent) error {
	who, err := x402.Recover(in.Authorization.Digest(in.Network.Domain().Separator()), in.Signature)
	if err != nil || who != in.Authorization.From {
		return x402.Refuse(x402.ReasonSignature, "not the payer's")
	}
	b.seen = append(b.seen, *in)
	return nil
}

// execute lets a stranger send what it has seen, if it can be sent.
func (b *bank) execute(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.seen) > 0 {
		_ = b.move(&b.seen[i%len(b.seen)].Authorization)
	}
}

// cancel is cancelAuthorization.
func (b *bank) cancel(from common.Address, nonce common.Hash) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.block++
	b.used[use{from, nonce}] = moved{block: b.block, at: b.now(), cancelled: true}
}

func (b *bank) Check(_ context.Context, in settlement.Intent) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.look(&in); err != nil {
		return 0, err
	}
	return b.block, b.judge(&in.Authorization)
}

func (b *bank) Settle(_ context.Context, in settlement.Intent) settlement.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.look(&in)
	if err == nil {
		err = b.move(&in.Authorization)
	}
	if out := b.find(&in); out.Status == settlement.Settled {
		return out
	}
	if err != nil {
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonOf(err), Err: err}
	}
	return settlement.Outcome{}
}

const safeAfter = time.Minute

// find is what the logs show.
func (b *bank) find(in *settlement.Intent) settlement.Outcome {
	a := &in.Authorization
	m, ok := b.used[use{a.From, a.Nonce}]
	safe := b.now().Sub(m.at) >= safeAfter
	switch {
	case ok && m.cancelled:
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonNonceUsed, Final: safe, Err: errors.New("cancelled")}
	case ok && m.to == a.To && m.amount == a.Value.Uint64() && m.block > in.ClaimBlock:
		hash := crypto.Keccak256Hash(a.From[:], a.Nonce[:])
		return settlement.Outcome{Status: settlement.Settled, Transaction: hash, Block: m.block, BlockHash: hash, Final: safe}
	case ok:
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonNonceUsed, Final: safe, Err: errors.New("used otherwise")}
	}
	return settlement.Outcome{}
}

func (b *bank) Resolve(_ context.Context, in settlement.Intent) settlement.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.find(&in)
	if out.Status == settlement.Unknown && in.Authorization.ValidBefore.Uint64() <= uint64(b.now().Add(-safeAfter).Unix()) {
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonValidBefore, Final: true}
	}
	return out
}

// Payers implements settlement.Tracer.
func (b *bank) Payers(_ context.Context, in settlement.Intent) (who []common.Address, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for u := range b.used {
		if in.Authorization.From = u.from; u.nonce == in.Authorization.Nonce && b.find(&in).Status == settlement.Settled {
			who = append(who, u.from)
		}
	}
	return who, nil
}

func (b *bank) Ready(context.Context) error { return nil }

func (b *bank) TokenBalance(_ context.Context, owner common.Address) (uint256.Int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *uint256.NewInt(b.balances[owner]), nil
}

// received tells how often, and how much, an account was paid under a nonce, by whichever wallet.
func (b *bank) received(by common.Hash) (times int, amount uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for u, m := range b.used {
		if u.nonce == by && !m.cancelled {
			times++
			amount += m.amount
		}
	}
	return times, amount
}

// refundKey makes the i-th refund wallet.
func refundKey(i int64) refund.Signer {
	key, err := crypto.ToECDSA(common.LeftPadBytes(big.NewInt(1000+i).Bytes(), 32))
	if err != nil {
		panic(fmt.Sprint("no key: ", err))
	}
	s, err := signer.NewLocal(key)
	if err != nil {
		panic(fmt.Sprint("no signer: ", err))
	}
	return s
}

// mortal ends a process after so many steps: whatever is asked for then fails, and is not done.
type mortal struct {
	mu   sync.Mutex
	left int // -1: for ever
}

var errDied = errors.New("the process has died")

func (m *mortal) step() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 {
		return errDied
	}
	if m.left > 0 {
		m.left--
	}
	return nil
}
