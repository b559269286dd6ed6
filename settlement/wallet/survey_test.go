package wallet_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/x402"
)

// books are a ledger as a survey sees it: what is known, and what was found.
type books struct {
	known map[common.Hash]bool // by the authorization's nonce
	found []settlement.Find
	fail  error
}

func newBooks(known ...settlement.Intent) *books {
	b := &books{known: make(map[common.Hash]bool)}
	for _, in := range known {
		b.known[in.Authorization.Nonce] = true
	}
	return b
}

// survey asks the settler to look, and enters what it finds.
func (b *books) survey(c *settlementtest.Case, back time.Duration) (settlement.Surveyed, error) {
	return c.Settler.(settlement.Surveyor).Survey(c.Ctx(), settlement.Survey{
		PayTo: c.PayTo, Back: back,
		Known: func(_ context.Context, id x402.AuthorizationID) (bool, error) { return b.known[id.Nonce], nil },
		Found: func(_ context.Context, f settlement.Find) error {
			if b.fail != nil {
				return b.fail
			}
			b.known[f.Authorization.Nonce] = true
			b.found = append(b.found, f)
			return nil
		},
	})
}

// want demands that all of these were found so far, each once and as it was signed and settled.
func (b *books) want(c *settlementtest.Case, outs map[common.Hash]settlement.Outcome, lost ...settlement.Intent) {
	c.Helper()
	if len(b.found) != len(lost) {
		c.Fatalf("%d were found, want %d: %+v", len(b.found), len(lost), b.found)
	}
	for _, in := range lost {
		a, ok := in.Authorization, false
		for _, f := range b.found {
			out := outs[a.Nonce]
			ok = ok || f.Authorization == a && f.Transaction == out.Transaction && f.Block == out.Block && f.BlockHash == out.BlockHash
		}
		if !ok {
			c.Errorf("the payment %s was not found as it is: %+v", in.Payment, b.found)
		}
	}
}

// settled settles n payments, one after another.
func settled(c *settlementtest.Case, n int) ([]settlement.Intent, map[common.Hash]settlement.Outcome) {
	c.Helper()
	var ins []settlement.Intent
	outs := make(map[common.Hash]settlement.Outcome)
	for range n {
		in := c.Claimed()
		out := c.Settle(in)
		c.WantSettled(in, out)
		ins, outs[in.Authorization.Nonce] = append(ins, in), out
	}
	return ins, outs
}

// A store that lost its tail: what the wallet sent since is found, once, and nothing that is known; then the journal is where
// the chain is, and there is no more reason to look, but for the second look when the blocks are safe.
func TestSurveyFindsWhatTheJournalLost(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	kept, _ := settled(c, 2)
	restore := c.Journal.Keep()
	lost, outs := settled(c, 12) // one in each block, so that none is left out where pages of blocks meet
	restore()
	c.Settler = c.Start()
	b := newBooks(kept...)
	sum, err := b.survey(c, 0)
	c.Must(err)
	b.want(c, outs, lost...)
	if first := outs[lost[0].Authorization.Nonce].Block; sum.From != first || sum.Payments != 12 || sum.Found != 12 || sum.Others != 0 {
		t.Errorf("got %+v, want all from block %d on", sum, first)
	}
	if n := nextNonce(c); n != 14 {
		t.Errorf("the journal's next nonce is %d, want 14", n)
	}
	if sum, err = b.survey(c, 0); err != nil || sum.To != 0 {
		t.Errorf("looked again at once: %+v %v", sum, err)
	}
	c.Commit(settlementtest.SafeLag)
	if sum, err = b.survey(c, 0); err != nil || sum.Payments != 12 || sum.Found != 0 {
		t.Errorf("the second look: %+v %v", sum, err)
	}
	before := c.Proxy.Requests()
	if sum, err = b.survey(c, 0); err != nil || sum.To != 0 || c.Proxy.Requests() != before {
		t.Errorf("without a reason %d questions: %+v %v", c.Proxy.Requests()-before, sum, err)
	}
	next := c.Claimed()
	c.WantSettled(next, c.Settle(next))
	c.WantReceived(15)
}

// nextNonce is the journal's.
func nextNonce(c *settlementtest.Case) uint64 {
	c.Helper()
	n, _, err := c.Journal.Nonce(c.Context(), c.H.Network.ChainID, crypto.PubkeyToAddress(c.Wallet.PublicKey))
	c.Must(err)
	return n
}

// transferCall is an ordinary transfer.
func transferCall(to common.Address, n int64) []byte {
	data := crypto.Keccak256([]byte("transfer(address,uint256)"))[:4]
	data = append(data, common.LeftPadBytes(to[:], 32)...)
	return append(data, common.LeftPadBytes(big.NewInt(n).Bytes(), 32)...)
}

// wide reports whether a question for logs is for more than n blocks.
func wide(params string, n uint64) bool {
	var filters []struct {
		From hexutil.Uint64 `json:"fromBlock"`
		To   hexutil.Uint64 `json:"toBlock"`
	}
	return json.Unmarshal([]byte(params), &filters) == nil && uint64(filters[0].To-filters[0].From) >= n
}

// old reports whether a count is asked for at a block, not at the latest.
func old(params string) bool {
	var list []string
	return json.Unmarshal([]byte(params), &list) == nil && strings.HasPrefix(list[1], "0x")
}

// Payments go on before anybody has looked: the wallet raises the nonce, and remembers why.
func TestSurveyAfterTheWalletWentOn(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	kept, _ := settled(c, 1)
	restore := c.Journal.Keep()
	lost, outs := settled(c, 2)
	restore()
	c.Settler = c.Start()
	after, _ := settled(c, 2)
	if len(c.Journal.All()) != 3 {
		t.Fatalf("%d transactions for 3 payments: it did not know where the chain was", len(c.Journal.All()))
	}
	b := newBooks(append(kept, after...)...)
	_, err := b.survey(c, 0)
	c.Must(err)
	b.want(c, outs, lost...)
}

// A lost transaction that was not mined yet takes the nonce of another one, which the journal has: the payment is made
// anew, and the lost one is found.
func TestSurveyAfterADeadTransaction(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	first, _ := settled(c, 1)
	restore := c.Journal.Keep()
	lost := c.Claimed()
	c.Stall()
	if out := c.SettleUntil(lost, "it waits for a block", func() bool { return c.Pooled() == 1 }); out.Status != settlement.Unknown {
		t.Fatalf("got %+v", out)
	}
	restore()
	c.Settler = c.Start()
	b := newBooks(first...)
	if sum, err := b.survey(c, 0); err != nil || sum.To != 0 {
		t.Fatalf("nothing is mined yet: %+v %v", sum, err)
	}
	in := c.Claimed()
	b.known[in.Authorization.Nonce] = true
	done := make(chan settlement.Outcome, 1)
	go func() { done <- c.Settle(in) }()
	c.WaitFor("the nonce is recorded a second time", func() bool { return len(c.Journal.All()) == 2 })
	c.H.Chain.Resume()
	c.WantSettled(in, <-done)
	c.WantRecorded(in, 2)
	c.WantReceived(3)
	_, err := b.survey(c, 0)
	c.Must(err)
	if len(b.found) != 1 || b.found[0].Authorization != lost.Authorization {
		t.Fatalf("found %+v", b.found)
	}
}

// Whose transaction of the lost claim still waits, and who comes again, is paid for once: by whichever is mined.
func TestClaimedAgainWhileTheLostOneWaits(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	settled(c, 1)
	restore := c.Journal.Keep()
	other, lost := c.Claimed(), c.Claimed()
	c.Stall()
	for i, in := range []settlement.Intent{other, lost} { // so that the lost one's nonce is not the next one
		if out := c.SettleUntil(in, "it waits for a block", func() bool { return c.Pooled() == uint64(i)+1 }); out.Status != settlement.Unknown {
			t.Fatalf("got %+v", out)
		}
	}
	ours := c.Journal.All()[2].Hash
	restore()
	c.Settler = c.Start()
	again := lost
	again.Payment = "pay_again"
	again = c.Claim(again)
	done := make(chan settlement.Outcome, 1)
	go func() { done <- c.Settle(again) }()
	c.WaitFor("it is recorded again", func() bool { return len(c.Journal.All()) == 2 })
	c.H.Chain.Resume()
	out := <-done
	c.WantSettled(again, out)
	c.WantReceived(3)
	if out.Transaction != ours && out.Transaction != c.Journal.All()[1].Hash {
		t.Errorf("settled by %s", out.Transaction)
	}
	b := newBooks(again)
	_, err := b.survey(c, time.Hour)
	c.Must(err)
	for _, f := range b.found {
		if f.Authorization.Nonce == again.Authorization.Nonce {
			t.Error("what is known was found")
		}
	}
	if len(b.found) != 2 { // the first one is not in these books
		t.Errorf("found %d", len(b.found))
	}
}

// What others executed is counted and left; what is no payment by authorization, or not to us, is not even counted.
func TestSurveyLeavesWhatIsNotOurs(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	kept, _ := settled(c, 1)
	restore := c.Journal.Keep()
	stranger := c.Sign(c.Payer, nil)
	c.FrontRun(stranger)
	c.Stall()
	for range 2 { // ordinary transfers; the second one's log is not the first of its block
		c.Send(c.Payer, transferCall(c.PayTo, 7), nil)
	}
	c.Commit(1)
	c.H.Chain.Resume()
	elsewhere := c.Claim(c.Sign(c.Payer, func(a *x402.Authorization) { a.To = common.Address{0xee} }))
	c.WantSettled(elsewhere, c.Settle(elsewhere))
	reverted := c.Sign(c.Payer, func(a *x402.Authorization) { a.ValidBefore.SetUint64(1) })
	c.Mined(c.Send(c.Wallet, reverted.Authorization.TransferCalldata(reverted.Signature), nil))
	lost, outs := settled(c, 1)
	restore()
	c.Settler = c.Start()
	b := newBooks(kept...)
	sum, err := b.survey(c, time.Hour)
	c.Must(err)
	b.want(c, outs, lost...)
	if sum.Payments != 3 || sum.Others != 1 {
		t.Errorf("got %+v, want 3 payments, 1 of them by another", sum)
	}
}

// A journal that knows nothing of a used wallet: what was sent lately is found, not what is older than the lookback.
func TestSurveyOfAFreshJournal(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{})
	settled(c, 1)
	c.Must(dev.AdvanceTime(25 * time.Hour))
	lost, outs := settled(c, 2)
	c.Journal = settlementtest.NewJournal()
	c.Settler = c.Start()
	b := newBooks()
	_, err := b.survey(c, 0)
	c.Must(err)
	b.want(c, outs, lost...)
	if n := nextNonce(c); n != 3 {
		t.Errorf("the journal's next nonce is %d, want 3", n)
	}
	if _, err = b.survey(c, 26*time.Hour); err != nil || len(b.found) != 3 { // the operator asks for more
		t.Errorf("found %d in 26 hours: %v", len(b.found), err)
	}
}

// Endpoints that keep no old states, and give few blocks at once, make it longer, not wrong.
func TestSurveyWithAPoorEndpoint(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	kept, _ := settled(c, 1)
	restore := c.Journal.Keep()
	lost, outs := settled(c, 1)
	c.Commit(20)
	more, outs2 := settled(c, 1)
	maps.Copy(outs, outs2)
	restore()
	c.Proxy.Refuse(func(method, params string) string {
		switch {
		case method == "eth_getTransactionCount" && old(params):
			return "missing trie node"
		case method == "eth_getLogs" && wide(params, 5):
			return "block range is too wide"
		}
		return ""
	})
	c.Settler = c.Start()
	b := newBooks(kept...)
	_, err := b.survey(c, 0)
	c.Must(err)
	b.want(c, outs, append(lost, more...)...)
}

// What was cut short is gone on with where it was left, and nothing is missed or given twice.
func TestSurveyGoesOn(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	kept, _ := settled(c, 1)
	restore := c.Journal.Keep()
	lost, outs := settled(c, 1)
	c.Commit(20)
	more, outs2 := settled(c, 1)
	maps.Copy(outs, outs2)
	restore()
	c.Settler = c.Start()
	b := newBooks(kept...)
	b.fail = errors.New("the store is down")
	if _, err := b.survey(c, 0); !errors.Is(err, b.fail) {
		t.Fatalf("got %v", err)
	}
	if n := nextNonce(c); n != 1 {
		t.Errorf("the reason to look is gone before anything was found: nonce %d", n)
	}
	b.fail = nil
	logs := 0
	c.Proxy.SetFault(func(methods []string) settlementtest.Fault {
		for _, m := range methods {
			if m == "eth_getLogs" {
				logs++
			}
		}
		if logs > 3 {
			return settlementtest.Fault{Status: 503}
		}
		return settlementtest.Fault{}
	})
	if _, err := b.survey(c, 0); !errors.Is(err, settlement.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	b.want(c, outs, lost...)
	c.Proxy.SetFault(nil)
	sum, err := b.survey(c, 0)
	c.Must(err)
	b.want(c, outs, append(lost, more...)...)
	if first := outs[lost[0].Authorization.Nonce].Block; sum.From <= first {
		t.Errorf("began at block %d again, although %d was done", sum.From, first)
	}
	if n := nextNonce(c); n != 3 {
		t.Errorf("the journal's next nonce is %d, want 3", n)
	}
}

// A block that a reorganisation takes away while it is looked for, and that comes again, is found by the second look.
func TestSurveyAfterAReorganisation(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{})
	kept, _ := settled(c, 1)
	c.Commit(5)
	restore := c.Journal.Keep()
	lost, _ := settled(c, 1)
	restore()
	c.Settler = c.Start()
	b := newBooks(kept...)
	next := c.Claim(c.Sign(c.Payer, nil))
	b.known[next.Authorization.Nonce] = true
	c.WantSettled(next, c.Settle(next)) // notices it
	c.Stall()
	c.Must(dev.Reorganize(2, false))
	if _, err := b.survey(c, 0); err != nil || len(b.found) != 0 {
		t.Fatalf("found %+v, %v", b.found, err)
	}
	dev.Resume()
	c.WaitFor("it is mined again", func() bool { return c.Nonce() == 3 })
	c.Commit(settlementtest.SafeLag)
	if _, err := b.survey(c, 0); err != nil || len(b.found) != 1 || b.found[0].Authorization != lost[0].Authorization {
		t.Fatalf("found %+v, %v", b.found, err)
	}
}

// A closed wallet looks for nothing, and closing does not wait for a long survey.
func TestSurveyOfAClosedWallet(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	settled(c, 1)
	c.Must(c.Settler.(interface{ Close() error }).Close())
	if _, err := newBooks().survey(c, time.Hour); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// The wallet itself calls the token in a way that we do not: it is seen, and not taken for a payment of ours.
func TestSurveyOfStrangeCalldata(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	in := c.Sign(c.Payer, nil)
	data := append(in.Authorization.TransferCalldata(in.Signature), 0) // the token does not mind
	if r := c.Mined(c.Send(c.Wallet, data, nil)); r.Status != types.ReceiptStatusSuccessful {
		t.Fatal("it reverted")
	}
	b := newBooks()
	sum, err := b.survey(c, 0)
	c.Must(err)
	if sum.Payments != 1 || sum.Found != 0 || sum.Others != 1 {
		t.Errorf("got %+v", sum)
	}
}
