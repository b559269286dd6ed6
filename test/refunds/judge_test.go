package refunds

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// movement is a transfer that an authorization made, read with go-ethereum's client and nothing of ours.
type movement struct {
	from, to common.Address
	nonce    common.Hash
	amount   uint64
	tx       common.Hash
}

var (
	topicTransfer = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
	topicUsed     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
)

func movements(ctx context.Context, url string) (list []movement, err error) {
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	logs, err := c.FilterLogs(ctx, ethereum.FilterQuery{FromBlock: new(big.Int), Addresses: []common.Address{devnet.TokenAddress}})
	if err != nil {
		return nil, fmt.Errorf("reading logs: %w", err)
	}
	for i := 1; i < len(logs); i++ {
		used, moved := &logs[i-1], &logs[i]
		if len(moved.Topics) == 3 && moved.Topics[0] == topicTransfer && len(used.Topics) == 3 && used.Topics[0] == topicUsed &&
			used.TxHash == moved.TxHash && used.Index+1 == moved.Index {
			list = append(list, movement{
				from: common.BytesToAddress(moved.Topics[1][:]), to: common.BytesToAddress(moved.Topics[2][:]), nonce: used.Topics[2],
				amount: new(big.Int).SetBytes(moved.Data).Uint64(), tx: moved.TxHash,
			})
		}
	}
	return list, nil
}

// evidence is what everybody says in the end.
type evidence struct {
	records   []ledger.Record
	movements []movement
	balances  map[common.Address]uint64
	// served are the payments of answers that clients read, with how often they did.
	served map[string]int
	// began and minted are what accounts had at the beginning, and what the refund wallet was given.
	began  map[common.Address]uint64
	minted uint64
	failed []string // of which the operator was told
}

// judge compares what everybody says. It holds at the end of a run in which the payer banned could not be paid.
func judge(t *testing.T, e *evidence, banned common.Address) {
	t.Helper()
	nonce := make(map[common.Hash]*ledger.Payment) // of what was sold, by the nonce of its own authorization
	byID := make(map[string]*ledger.Payment)
	backs := make(map[string][]*ledger.Payment)
	for i := range e.records {
		p := &e.records[i].Payment
		byID[p.ID] = p
		if p.PaysBack() {
			backs[p.Binding.URI] = append(backs[p.Binding.URI], p)
			continue
		}
		nonce[p.Nonce] = p
	}
	var earned, returned uint64
	spent, got := make(map[common.Address]uint64), make(map[common.Address]uint64)
	paid, back := make(map[string]int), make(map[string]int)
	for _, m := range e.movements {
		switch {
		case m.to == rig.PayTo:
			p := nonce[m.nonce]
			if p == nil || p.Payer != m.from || p.Amount.Uint64() != m.amount {
				t.Errorf("%d of %s reached the seller, and no payment says so", m.amount, m.from)
				continue
			}
			paid[p.ID]++
			earned += m.amount
			spent[m.from] += m.amount
		case m.from == refundWallet.Address:
			id := ""
			for of, list := range backs {
				for _, q := range list {
					if q.Nonce == m.nonce && q.PayTo == m.to && q.Amount.Uint64() == m.amount && q.Transaction == m.tx {
						id = of
					}
				}
			}
			if id == "" {
				t.Errorf("%d were paid back to %s, and no payment says so", m.amount, m.to)
				continue
			}
			back[id]++
			returned += m.amount
			got[m.to] += m.amount
		default:
			t.Errorf("a transfer of nobody's: %+v", m)
		}
	}
	counts := make(map[ledger.State]int)
	for i := range e.records {
		p := &e.records[i].Payment
		if p.PaysBack() {
			continue
		}
		counts[p.State()]++
		e.judgeOne(t, p, paid[p.ID], back[p.ID], banned)
	}
	for id, n := range e.served {
		if p := byID[id]; p == nil || p.Delivery != ledger.Delivered || n > 1 || back[id] > 0 {
			t.Errorf("%s was served %d times and paid back %d times: %+v", id, n, back[id], p)
		}
	}
	for who, had := range e.began {
		if want := had - spent[who] + got[who]; e.balances[who] != want {
			t.Errorf("%s has %d, want %d", who, e.balances[who], want)
		}
	}
	if e.balances[rig.PayTo] != earned || e.balances[refundWallet.Address] != e.minted-returned {
		t.Errorf("the seller has %d of %d, the refund wallet %d of %d - %d", e.balances[rig.PayTo], earned, e.balances[refundWallet.Address], e.minted, returned)
	}
	if counts[ledger.StateRefunded] == 0 || counts[ledger.StateDelivered] == 0 || counts[ledger.StateRefundFailed] == 0 {
		t.Errorf("the run shows too little: %v", counts)
	}
	t.Logf("%v; earned %d, paid back %d by %d transfers; %d answers were read", counts, earned, returned, len(back), len(e.served))
}

func (e *evidence) judgeOne(t *testing.T, p *ledger.Payment, paid, back int, banned common.Address) {
	t.Helper()
	ok := false
	switch p.State() {
	case ledger.StateDelivered:
		ok = paid == 1 && back == 0
	case ledger.StateRefunded:
		ok = paid == 1 && back == 1
	case ledger.StateRefundFailed:
		ok = paid == 1 && back == 0 && p.Payer == banned && slices.Contains(e.failed, p.ID)
	case ledger.StateFailed, ledger.StateVoid, ledger.StateSettling:
		ok = paid == 0 && back == 0 // its client has left it before anything was sent
	}
	if !ok || paid > 1 {
		t.Errorf("%s of %s is %s (%s, final %t): paid %d times, paid back %d times", p.ID, p.Payer, p.State(), p.Reason, p.Final, paid, back)
	}
}
