package refunds

import (
	"context"
	"fmt"
	"math/big"
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
	// served are the payments of answers that clients read, with how often they did; held are those of which they were told that they go
	// back, and said is what anybody is told of each payment in the end.
	served map[string]int
	held   map[string]bool
	said   map[string]status
	// began and minted are what accounts had at the beginning, and what the refund wallet was given.
	began  map[common.Address]uint64
	minted uint64
	untold map[string]bool // payments of whose failed refund the operator was not told, though nobody was killed who might have
	kills  int
	waits  int // how often it was said that the refund wallet has too little
}

// trial is what the evidence comes to.
type trial struct {
	*evidence
	t      *testing.T
	banned common.Address

	byNonce map[common.Hash]*ledger.Payment // what was sold, by the nonce of its own authorization
	byID    map[string]*ledger.Payment
	backs   map[common.Hash]*ledger.Payment // transfers back, by their nonces

	paid, back       map[string]int         // transfers of each payment
	by               map[string]common.Hash // by which a payment went back
	earned, returned uint64
	spent, got       map[common.Address]uint64
	counts           map[ledger.State]int
}

// judge compares what everybody says. It holds at the end of a run in which the payer banned could not be paid.
func judge(t *testing.T, e *evidence, banned common.Address) {
	t.Helper()
	j := &trial{
		evidence: e, t: t, banned: banned, byNonce: map[common.Hash]*ledger.Payment{}, byID: map[string]*ledger.Payment{},
		backs: map[common.Hash]*ledger.Payment{}, paid: map[string]int{}, back: map[string]int{}, by: map[string]common.Hash{},
		spent: map[common.Address]uint64{}, got: map[common.Address]uint64{}, counts: map[ledger.State]int{},
	}
	for i := range e.records {
		p := &e.records[i].Payment
		j.byID[p.ID] = p
		if p.PaysBack() {
			j.backs[p.Nonce] = p
		} else {
			j.byNonce[p.Nonce] = p
		}
	}
	for _, m := range e.movements {
		j.judgeMovement(&m)
	}
	settled := 0
	for i := range e.records {
		p := &e.records[i].Payment
		if p.Settlement == ledger.Settled {
			settled++
		}
		if !p.PaysBack() {
			j.counts[p.State()]++
			j.judgePayment(p)
		}
	}
	if settled != len(e.movements) {
		t.Errorf("the ledger has %d transfers, the chain %d", settled, len(e.movements))
	}
	j.judgeAnswers()
	off := j.judgeBalances()
	c := j.counts
	if c[ledger.StateRefunded] == 0 || c[ledger.StateDelivered] == 0 || c[ledger.StateRefundFailed] == 0 || e.kills == 0 || e.waits == 0 {
		t.Errorf("the run shows too little: %v, %d kills, %d times without money", c, e.kills, e.waits)
	}
	t.Logf("%d payments: %d delivered, %d refunded, %d failed to be, %d not charged; %d kills; %d transfers on the chain, %d of them back, and %d in the ledger; "+
		"earned %d, paid back %d; off by %d units; clients read %d answers, and of %d that they are paid back",
		len(j.byNonce), c[ledger.StateDelivered], c[ledger.StateRefunded], c[ledger.StateRefundFailed],
		len(j.byNonce)-c[ledger.StateDelivered]-c[ledger.StateRefunded]-c[ledger.StateRefundFailed], e.kills,
		len(e.movements), len(j.back), settled, j.earned, j.returned, off, len(e.served), len(e.held))
}

// judgeMovement: each transfer is one payment's, in, or back from the refund wallet to who paid.
func (j *trial) judgeMovement(m *movement) {
	j.t.Helper()
	switch p, q := j.byNonce[m.nonce], j.backs[m.nonce]; {
	case m.to == rig.PayTo && p != nil && p.Payer == m.from && p.Amount.Uint64() == m.amount && p.Transaction == m.tx:
		j.paid[p.ID]++
		j.earned += m.amount
		j.spent[m.from] += m.amount
	case m.from == refundWallet.Address && q != nil && q.PayTo == m.to && q.Amount.Uint64() == m.amount && q.Transaction == m.tx:
		id := q.Binding.URI
		if of := j.byID[id]; of == nil || of.Payer != m.to || of.Amount != q.Amount {
			j.t.Errorf("%d went to %s, who had not paid that: %+v", m.amount, m.to, of)
		}
		j.back[id]++
		j.by[id] = m.tx
		j.returned += m.amount
		j.got[m.to] += m.amount
	default:
		j.t.Errorf("a transfer that no payment tells of: %+v", m)
	}
}

// judgePayment: it was paid once and delivered, or paid once and paid back once, or the operator knows that it can't be; or it was not paid.
func (j *trial) judgePayment(p *ledger.Payment) {
	j.t.Helper()
	paid, back, ok := j.paid[p.ID], j.back[p.ID], false
	said := j.said[p.ID]
	switch p.State() {
	case ledger.StateDelivered:
		ok = paid == 1 && back == 0
	case ledger.StateRefunded:
		ok = paid == 1 && back == 1 && said.RefundTransaction == j.by[p.ID].Hex()
	case ledger.StateRefundFailed:
		ok = paid == 1 && back == 0 && p.Payer == j.banned && !j.untold[p.ID]
	case ledger.StateFailed, ledger.StateVoid, ledger.StateSettling:
		ok = paid == 0 && back == 0 // its client has left it before anything was sent
	}
	if !ok {
		j.t.Errorf("%s of %s is %s (%s, final %t): paid %d times, paid back %d times by %s; nobody was told: %t",
			p.ID, p.Payer, p.State(), p.Reason, p.Final, paid, back, j.by[p.ID], j.untold[p.ID])
	}
	if said.State != string(p.State()) || paid == 1 && said.Transaction != p.Transaction.Hex() {
		j.t.Errorf("of %s, which is %s, it is said: %+v", p.ID, p.State(), said)
	}
}

// judgeAnswers: who got something has paid for it, and was not paid back; who was told to be paid back is, or the operator knows.
func (j *trial) judgeAnswers() {
	j.t.Helper()
	for id, n := range j.served {
		if p := j.byID[id]; p == nil || p.Delivery != ledger.Delivered || n > 1 || j.back[id] > 0 {
			j.t.Errorf("%s was served %d times and paid back %d times: %+v", id, n, j.back[id], p)
		}
	}
	for id := range j.held {
		if p := j.byID[id]; p == nil || p.Refund == ledger.NotRefunded {
			j.t.Errorf("somebody was told that %s goes back, and it does not: %+v", id, p)
		}
	}
}

// judgeBalances gives by how many units all accounts together are off.
func (j *trial) judgeBalances() (off uint64) {
	j.t.Helper()
	want := map[common.Address]uint64{rig.PayTo: j.earned, refundWallet.Address: j.minted - j.returned}
	for who, had := range j.began {
		want[who] = had - j.spent[who] + j.got[who]
	}
	for who, n := range want {
		if has := j.balances[who]; has != n {
			j.t.Errorf("%s has %d, want %d", who, has, n)
			off += max(has, n) - min(has, n)
		}
	}
	return off
}
