package wallet_test

import (
	"context"
	"crypto/ecdsa"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// crowd are payments by payers of their own, claimed.
func crowd(c *settlementtest.Case, n int) []settlement.Intent {
	c.Helper()
	all := make([]settlement.Intent, n)
	for i := range all {
		all[i] = c.Claim(c.Sign(c.H.Fresh(), nil))
	}
	return all
}

// settling are settlements under way.
type settling struct {
	c        *settlementtest.Case
	outcomes []settlement.Outcome
	wg       sync.WaitGroup
}

func settleAll(c *settlementtest.Case, s settlement.Settler, all []settlement.Intent) *settling {
	run := &settling{c: c, outcomes: make([]settlement.Outcome, len(all))}
	for i, in := range all {
		run.wg.Go(func() { run.outcomes[i] = s.Settle(c.Ctx(), in) })
	}
	return run
}

// wantSettled waits for all and demands that each is settled.
func (s *settling) wantSettled(all []settlement.Intent) {
	s.c.Helper()
	s.wg.Wait()
	for i, in := range all {
		s.c.WantSettled(in, s.outcomes[i])
	}
}

// sent waits until n transactions are recorded and broadcast.
func sent(c *settlementtest.Case, n int) []settlement.Transaction {
	c.Helper()
	c.WaitFor("the transactions are recorded", func() bool { return len(c.Journal.All()) >= n })
	c.WaitFor("the transactions are broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") >= n })
	return c.Journal.All()
}

// patient is how long a batch lingers for payments that come at the same time: on a busy machine that takes a while.
const patient = time.Second

// A lone payment leaves at once; those that come while it is under way travel together.
func TestPaymentsTravelTogether(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Batch: 20, Linger: patient}})
	all := crowd(c, 31)
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 1)
	rest := settleAll(c, c.Settler, all[1:])
	txs := sent(c, 3)
	if len(txs) != 3 || len(txs[0].Payments) != 1 || len(txs[1].Payments) != 20 || len(txs[2].Payments) != 10 {
		t.Errorf("%d transactions: %d, %d and %d payments", len(txs), len(txs[0].Payments), len(txs[1].Payments), len(txs[2].Payments))
	}
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	rest.wantSettled(all[1:])
	c.WantReceived(31)
	for _, in := range all {
		c.WantSettled(in, c.Resolve(in))
	}
}

// A payment that would fail is taken out of the batch before it is sent; one that fails in it does not hurt the others, which
// get no second transaction.
func TestFailuresInABatch(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Linger: patient}})
	all := crowd(c, 12)
	broke := c.Claim(c.Sign(c.Payer, nil))
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 1)
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	// Gone before the batch is put together.
	c.SpendAll()
	c.Stall()
	blocker := crowd(c, 1)
	held := settleAll(c, c.Settler, blocker)
	sent(c, 2)
	lost := settleAll(c, c.Settler, []settlement.Intent{broke})
	rest := settleAll(c, c.Settler, all[1:])
	txs := sent(c, 3)
	lost.wg.Wait()
	c.WantFailed(lost.outcomes[0], x402.ReasonInsufficientBalance)
	c.WantRecorded(broke, 0)
	// A stranger executes one of them in the same block, before us: inside the batch it fails.
	stolen := all[5]
	hash := c.Send(c.H.Fresh(), stolen.Authorization.TransferCalldata(stolen.Signature), nil)
	c.Commit(1)
	c.H.Chain.Resume()
	held.wantSettled(blocker)
	rest.wantSettled(all[1:])
	if got := rest.outcomes[4].Transaction; got != hash {
		t.Errorf("settled by %s, want the stranger's %s", got, hash)
	}
	if now := c.Journal.All(); len(now) != len(txs) {
		t.Errorf("%d transactions were made after the batch", len(now)-len(txs))
	}
	c.WantReceived(13)
}

// An account whose code burns all gas appears between the simulation and the block, so that the batch fails for its neighbours
// too. It is halved until the culprit is alone: all others are settled.
func TestCulpritIsIsolated(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{settings: wallet.Settings{Linger: patient, Batch: 16}})
	hostile, err := dev.DeployHostileWallet(c.Ctx(), devnet.BurnGas, 0)
	c.Must(err)
	delegate(t, c, hostile)
	c.Must(dev.SetMode(c.Ctx(), crypto.PubkeyToAddress(c.Payer.PublicKey), devnet.BurnGas, 0))
	delegate(t, c, common.Address{}) // no code any more; what it stored is still there
	all := crowd(c, 15)
	culprit := c.Claim(c.Sign(c.Payer, nil))
	c.Stall()
	blocker := crowd(c, 1)
	held := settleAll(c, c.Settler, blocker)
	sent(c, 1)
	bad := settleAll(c, c.Settler, []settlement.Intent{culprit})
	time.Sleep(50 * time.Millisecond) // so that it comes first in the batch
	rest := settleAll(c, c.Settler, all)
	if txs := sent(c, 2); len(txs) != 2 || len(txs[1].Payments) != 16 {
		t.Fatalf("%d transactions, %d payments in the last one", len(txs), len(txs[len(txs)-1].Payments))
	}
	sendDelegation(t, c, hostile)
	c.Commit(1)
	c.H.Chain.Resume()
	held.wantSettled(blocker)
	rest.wantSettled(all)
	bad.wg.Wait()
	c.WantFailed(bad.outcomes[0], x402.ReasonSignature)
	c.WantReceived(16)
	t.Logf("%d transactions", len(c.Journal.All()))
}

// Who comes when the queue is full is told so before anything is claimed; nothing is sent for it.
func TestQueueIsBounded(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Queue: 2, InFlight: 1, Batch: 1}})
	all := crowd(c, 4)
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 1)
	waiting := settleAll(c, c.Settler, all[1:3])
	c.WaitFor("the queue is full", func() bool {
		_, err := c.Settler.Check(c.Ctx(), all[3])
		return err != nil
	})
	out := c.Settle(all[3])
	if out.Status != settlement.Unknown || out.Err == nil {
		t.Errorf("got %+v", out)
	}
	c.WantRecorded(all[3], 0)
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	waiting.wantSettled(all[1:3])
	c.WantSettled(all[3], c.Settle(all[3]))
	c.WantReceived(4)
}

// Two wallets share the work; one without ether leaves it to the other.
func TestLanes(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{settings: wallet.Settings{InFlight: 1, Batch: 1}})
	other := c.H.Fresh()
	two := startWith(t, c, other)
	all := crowd(c, 2)
	c.Stall()
	run := settleAll(c, two, all)
	txs := sent(c, 2)
	if txs[0].Wallet == txs[1].Wallet {
		t.Errorf("both were sent by %s", txs[0].Wallet)
	}
	c.H.Chain.Resume()
	run.wantSettled(all)
	poor, err := crypto.GenerateKey()
	c.Must(err)
	before := len(c.Journal.All())
	rest := crowd(c, 4)
	settleAll(c, startWith(t, c, poor), rest).wantSettled(rest)
	for _, tx := range c.Journal.All()[before:] {
		if tx.Wallet != crypto.PubkeyToAddress(c.Wallet.PublicKey) {
			t.Errorf("%s has no ether and sent %s", tx.Wallet, tx.Hash)
		}
	}
	c.WantReceived(6)
}

// What a batch carries is found again where the ledger lost it.
func TestSurveyReadsBatches(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Linger: patient}})
	all := crowd(c, 6)
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 1)
	rest := settleAll(c, c.Settler, all[1:])
	sent(c, 2)
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	rest.wantSettled(all[1:])
	found := make(map[common.Hash]bool)
	_, err := c.Settler.(settlement.Surveyor).Survey(c.Ctx(), settlement.Survey{
		PayTo: c.PayTo, Back: time.Hour,
		Known: func(context.Context, x402.AuthorizationID) (bool, error) { return false, nil },
		Found: func(_ context.Context, f settlement.Find) error {
			found[f.Authorization.Nonce] = true
			return nil
		},
	})
	c.Must(err)
	for _, in := range all {
		if !found[in.Authorization.Nonce] {
			t.Errorf("the payment %s was not found", in.Payment)
		}
	}
	if txs := c.Journal.All(); len(txs) != 2 {
		t.Errorf("%d transactions", len(txs))
	}
}

// startWith starts a settler on the case's journal, endpoint and wallet, and another wallet.
func startWith(t *testing.T, c *settlementtest.Case, other *ecdsa.PrivateKey) settlement.Settler {
	t.Helper()
	return start(t, settlementtest.Setup{URL: c.Proxy.URL(), Key: c.Wallet, Journal: c.Journal},
		options{settings: wallet.Settings{InFlight: 1, Batch: 1}, more: []*ecdsa.PrivateKey{other}})
}

// A contract wallet that takes much gas does not make the batches of the others smaller.
func TestExpensivePayerDoesNotShrinkBatches(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{settings: wallet.Settings{Batch: 30, BatchGas: 3_500_000, Linger: patient}})
	costly := c.Claim(fromHostile(c, dev, devnet.Expensive, 300_000))
	c.WantSettled(costly, c.Settle(costly))
	all := crowd(c, 31)
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 2)
	rest := settleAll(c, c.Settler, all[1:])
	txs := sent(c, 3)
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	rest.wantSettled(all[1:])
	if n := len(txs[2].Payments); n != 30 {
		t.Errorf("a batch of %d", n)
	}
}

// Whom a stranger has overtaken travels with others again.
func TestOvertakenPayerIsNotIsolated(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Linger: patient}})
	in := c.Claimed()
	c.Stall()
	run := settleAll(c, c.Settler, []settlement.Intent{in})
	sent(c, 1)
	c.Send(c.H.Fresh(), in.Authorization.TransferCalldata(in.Signature), nil)
	c.Commit(1)
	c.H.Chain.Resume()
	run.wantSettled([]settlement.Intent{in})
	c.Stall()
	all := append(crowd(c, 4), c.Claimed())
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 2)
	rest := settleAll(c, c.Settler, all[1:])
	txs := sent(c, 3)
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	rest.wantSettled(all[1:])
	if n := len(txs[2].Payments); n != 4 {
		t.Errorf("a batch of %d", n)
	}
}

// An account gets code that burns all gas after it was checked: that is seen before anything is sent, and the others still travel
// together.
func TestCodeSinceTheCheck(t *testing.T) {
	dev := startChain(t)
	for name, mode := range map[string]devnet.Mode{"burns": devnet.BurnGas, "lies to simulations": devnet.AcceptInSimulation} {
		t.Run(name, func(t *testing.T) {
			c := newCase(t, dev, options{settings: wallet.Settings{Linger: patient, Batch: 16}})
			hostile, err := dev.DeployHostileWallet(c.Ctx(), mode, 0)
			c.Must(err)
			delegate(t, c, hostile)
			c.Must(dev.SetMode(c.Ctx(), crypto.PubkeyToAddress(c.Payer.PublicKey), mode, 0))
			delegate(t, c, common.Address{})
			all := crowd(c, 15)
			culprit := c.Claim(c.Sign(c.Payer, nil))
			delegate(t, c, hostile)
			if mode == devnet.AcceptInSimulation {
				time.Sleep(time.Second)
			}
			c.Stall()
			blocker := crowd(c, 1)
			held := settleAll(c, c.Settler, blocker)
			sent(c, 1)
			bad := settleAll(c, c.Settler, []settlement.Intent{culprit})
			time.Sleep(50 * time.Millisecond) // so that it comes first in the batch
			rest := settleAll(c, c.Settler, all)
			sent(c, 2)
			time.Sleep(time.Second)
			for _, tx := range c.Journal.All()[1:] {
				if n := len(tx.Payments); n != 15 && (n != 1 || tx.Payments[0] != culprit.Payment) {
					t.Errorf("a transaction of %d payments", n)
				}
			}
			c.H.Chain.Resume()
			held.wantSettled(blocker)
			rest.wantSettled(all)
			bad.wg.Wait()
			if bad.outcomes[0].Status != settlement.Failed {
				t.Errorf("got %+v", bad.outcomes[0])
			}
			c.WantReceived(16)
		})
	}
}
