package wallet_test

import (
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

// reviewed is a case with payments that are settled, in two transactions at least.
type reviewed struct {
	*settlementtest.Case
	clk  *clock
	all  []settlement.Intent
	outs []settlement.Outcome
}

func newReviewed(t *testing.T, n int) *reviewed {
	t.Helper()
	r := &reviewed{clk: &clock{}}
	r.Case = newCase(t, startChain(t), options{now: r.clk.now, settings: wallet.Settings{Batch: (n + 1) / 2}})
	r.all = crowd(r.Case, n)
	r.Stall()
	run := settleAll(r.Case, r.Settler, r.all)
	sent(r.Case, 2)
	r.H.Chain.Resume()
	run.wantSettled(r.all)
	r.outs = run.outcomes
	return r
}

// standing are the payments as a ledger knows them: where they were settled, or only that they were sent.
func (r *reviewed) standing(where bool) []settlement.Standing {
	list := make([]settlement.Standing, len(r.all))
	for i, in := range r.all {
		list[i] = settlement.Standing{Intent: in}
		if where {
			list[i].Transaction, list[i].Block, list[i].BlockHash = r.outs[i].Transaction, r.outs[i].Block, r.outs[i].BlockHash
		}
	}
	return list
}

// review reviews after what was seen before is too old.
func (r *reviewed) review(where bool) []*settlement.Outcome {
	r.Helper()
	r.clk.advance(time.Minute)
	outs, err := r.Settler.(settlement.Reviewer).Review(r.Ctx(), r.standing(where))
	r.Must(err)
	return outs
}

// want demands that all are settled where Resolve finds them.
func (r *reviewed) want(outs []*settlement.Outcome, final bool) {
	r.Helper()
	for i, in := range r.all {
		if outs[i] == nil {
			r.Fatalf("payment %d needs Resolve", i)
		}
		r.WantSettled(in, *outs[i])
		if alone := r.Resolve(in); *outs[i] != alone || alone.Final != final {
			r.Errorf("payment %d: Review says %+v, Resolve %+v, want final %t", i, *outs[i], alone, final)
		}
	}
}

// What Review says of many payments is what Resolve says of each, at the price of a question for each block or transaction.
func TestReview(t *testing.T) {
	const n = 40
	r := newReviewed(t, n)
	for _, where := range []bool{true, false} {
		r.want(r.review(where), false)
	}
	r.Commit(settlementtest.SafeLag)
	for _, where := range []bool{true, false} {
		receipts, blocks, requests := r.Proxy.Count("eth_getTransactionReceipt"), r.Proxy.Count("eth_getBlockByNumber"), r.Proxy.Requests()
		outs := r.review(where)
		receipts, blocks, requests = r.Proxy.Count("eth_getTransactionReceipt")-receipts, r.Proxy.Count("eth_getBlockByNumber")-blocks, r.Proxy.Requests()-requests
		txs := len(r.Journal.All())
		if requests > 2 || where && (receipts > 0 || blocks > 2+txs) || !where && (receipts > txs || blocks > 2) {
			t.Errorf("%d payments in %d transactions cost %d receipts and %d blocks in %d requests", n, txs, receipts, blocks, requests)
		}
		r.want(outs, true)
	}
}

// A demand that is not met yet is said to be so, of those payments that it is made of.
func TestReviewOfUnconfirmedPayments(t *testing.T) {
	r := newReviewed(t, 6)
	r.all[1].Finality = settlement.Finality{Confirmations: 1000}
	r.all[2].Finality = settlement.Finality{Safe: true}
	for _, where := range []bool{true, false} {
		for i, out := range r.review(where) {
			switch {
			case out == nil:
				t.Errorf("payment %d needs Resolve", i)
			case (out.Status == settlement.Unknown) != (i == 1 || i == 2), (out.Wait > 0) != (i == 1 || i == 2), out.Err != nil:
				t.Errorf("payment %d: %+v", i, *out)
			}
		}
	}
	r.Commit(settlementtest.SafeLag)
	for i, out := range r.review(true) { // what is safe is deep enough for any demand
		if out == nil || out.Status != settlement.Settled || !out.Final {
			t.Errorf("payment %d: %+v", i, out)
		}
	}
}

// What was taken back is left to Resolve, and what is in another block now is found there.
func TestReviewAfterReorganization(t *testing.T) {
	r := newReviewed(t, 6)
	first := slices.MinFunc(r.outs, func(a, b settlement.Outcome) int { return int(a.Block) - int(b.Block) })
	head := slices.MaxFunc(r.outs, func(a, b settlement.Outcome) int { return int(a.Block) - int(b.Block) })
	r.H.Chain.Stall()
	r.Must(r.H.Chain.Reorganize(head.Block-first.Block+1, false))
	for i, out := range r.review(true) {
		if out != nil {
			t.Errorf("payment %d is on no block, and it says %+v", i, *out)
		}
	}
	r.Commit(1)
	outs := r.review(true)
	r.want(outs, false)
	for i, out := range outs {
		if out.BlockHash == r.outs[i].BlockHash || out.Block <= r.outs[i].Block {
			t.Errorf("payment %d: %+v, it was in %+v", i, *out, r.outs[i])
		}
	}
}

// A payment one of whose transactions can still be mined is not made final by a review: nobody would look after that one.
func TestReviewLeavesOpenTransactions(t *testing.T) {
	r := newReviewed(t, 4)
	r.Commit(settlementtest.SafeLag)
	other := r.Journal.All()[0]
	other.Nonce, other.Hash = nextNonce(r.Case), common.Hash{1}
	other.Payments = []string{r.all[2].Payment}
	r.Must(r.Journal.Record(t.Context(), other))
	for i, out := range r.review(true) {
		if (out == nil) != (i == 2) {
			t.Errorf("payment %d: %+v", i, out)
		}
	}
}

// Who settles it again while it waits for confirmations finds the same transfer.
func TestSettledTwiceWhileItWaits(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	in := c.Claimed()
	in.Finality = settlement.Finality{Confirmations: 3}
	other := c.Start()
	run := settleAll(c, c.Settler, []settlement.Intent{in, in})
	more := settleAll(c, other, []settlement.Intent{in})
	c.WaitFor("it is mined", func() bool { return c.Nonce() == 1 })
	c.Commit(2)
	run.wantSettled([]settlement.Intent{in, in})
	more.wantSettled([]settlement.Intent{in})
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}
