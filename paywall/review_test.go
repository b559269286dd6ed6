package paywall

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

// crowded is a ledger of n payments that were settled in the last blocks of a chain, and delivered; how many are final is counted.
type crowded struct {
	t     *testing.T
	chain *devnet.Chain
	rpc   *settlementtest.Proxy
	store ledger.Store
	clock atomic.Int64
	ids   []string
}

// now is the clock of ledger and wallet.
func (c *crowded) now() time.Time { return time.Now().Add(time.Duration(c.clock.Load())) }

const crowdedLag = 150 // how many blocks the chain's safe block is behind its head

func newCrowded(t *testing.T, n, blocks int) *crowded {
	t.Helper()
	dev, err := devnet.Start(t.Context(), devnet.Options{Heartbeat: -1, SafeLag: crowdedLag})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	c := &crowded{t: t, chain: dev, rpc: settlementtest.NewProxy(t, dev.URL())}
	c.store = storetest.NewMemory(c.now, false)
	c.commit(crowdedLag + blocks)
	client, err := ethclient.DialContext(t.Context(), dev.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	head, err := client.BlockNumber(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hashes := make([]common.Hash, blocks)
	for i := range hashes {
		h, err := client.HeaderByNumber(t.Context(), new(uint256.Int).SetUint64(head-uint64(i)).ToBig())
		if err != nil {
			t.Fatal(err)
		}
		hashes[i] = h.Hash()
	}
	for i := range n {
		c.settled(i, head-uint64(i%blocks), hashes[i%blocks])
	}
	return c
}

func (c *crowded) commit(n int) {
	c.t.Helper()
	for range n {
		if err := c.chain.Commit(); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *crowded) settled(i int, block uint64, hash common.Hash) {
	c.t.Helper()
	var p ledger.Payment
	var err error
	binary.BigEndian.PutUint64(p.Payer[:], uint64(i)+1)
	p.Nonce[0], p.ChainID, p.Asset, p.PayTo, p.Amount, p.Flow = 1, devnet.ChainID, devnet.TokenAddress, seller, *uint256.NewInt(cent), ledger.FlowUpfront
	if p.ID, err = ledger.NewID(randomness, p.Payer); err != nil {
		c.t.Fatal(err)
	}
	p, err = c.store.Claim(c.t.Context(), p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: time.Minute})
	if err == nil {
		_, err = c.store.Update(c.t.Context(), p.ID, p.Version,
			ledger.Change{Event: ledger.EventSettle, Actor: actorRequest, Transaction: common.Hash{0: 1, 30: byte(block >> 8), 31: byte(block)}, Block: block, BlockHash: hash},
			ledger.Change{Event: ledger.EventDeliver, Actor: actorRequest, Fence: p.Hold.Fence, Hold: time.Minute},
			ledger.Change{Event: ledger.EventDelivered, Actor: actorRequest, Fence: p.Hold.Fence})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.ids = append(c.ids, p.ID)
}

// engine starts an engine whose wallet asks the counting endpoint; wrap may hide what the wallet can do.
func (c *crowded) engine(wrap func(settlement.Settler) settlement.Settler) *Engine {
	c.t.Helper()
	client, err := chain.New(chain.Config{Endpoints: []string{c.rpc.URL()}, ChainID: devnet.ChainID})
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := signer.NewLocal(devnet.Developer(0).Key)
	if err != nil {
		c.t.Fatal(err)
	}
	w, err := wallet.New(wallet.Config{
		Network: devnet.Network(), Signers: []wallet.Signer{key}, Chain: client, Journal: &journal{c.store}, Now: c.now,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _, _ = w.Close(), client.Close() })
	var s settlement.Settler = w
	if wrap != nil {
		s = wrap(w)
	}
	payee := &Payee{Network: devnet.Network(), PayTo: seller, Settler: s}
	e := startEngine(c.t, c.store, Settings{Payees: []*Payee{payee}, ReconcileEvery: time.Hour})
	e.stop() // it looks when the test says so
	<-e.reconciled
	return e
}

// calls are the questions that came to the endpoint, and in how many requests.
func (c *crowded) calls() (calls, requests int) {
	for _, method := range []string{
		"eth_blockNumber", "eth_getBlockByNumber", "eth_getTransactionReceipt", "eth_getLogs", "eth_getTransactionCount", "eth_chainId", "eth_getBalance",
	} {
		calls += c.rpc.Count(method)
	}
	return calls, c.rpc.Requests()
}

func (c *crowded) final() (n int) {
	c.t.Helper()
	for _, id := range c.ids {
		p, err := c.store.Payment(c.t.Context(), id)
		if err != nil {
			c.t.Fatal(err)
		}
		if p.Final {
			n++
		}
	}
	return n
}

// look lets e reconcile all that is due after d, and gives what that cost.
func (c *crowded) look(e *Engine, d time.Duration) (calls, requests int) {
	c.clock.Add(int64(d))
	before, asked := c.calls()
	e.reconcile(c.t.Context())
	calls, requests = c.calls()
	return calls - before, requests - asked
}

// Thousands of payments that wait for their blocks to be safe are looked at for the price of one question for each block, not
// for each payment.
func TestManyPaymentsAreLookedAtTogether(t *testing.T) {
	const n, blocks = 3_000, 60
	c := newCrowded(t, n, blocks)
	e := c.engine(nil)
	c.look(e, 0) // whatever the engine has begun itself
	for i, want := range []int{0, 0, n} {
		if want > 0 {
			c.commit(crowdedLag)
		}
		calls, requests := c.look(e, 9*time.Hour)
		t.Logf("look %d at %d payments: %d calls in %d requests", i+1, n, calls, requests)
		// A look serves for two seconds; on a machine that is busy there are several.
		if calls > n/5 || requests > n/16 {
			t.Errorf("look %d: %d calls in %d requests for %d payments in %d blocks", i+1, calls, requests, n, blocks)
		}
		if got := c.final(); got != want {
			t.Fatalf("look %d: %d payments are final, want %d", i+1, got, want)
		}
	}
	if calls, _ := c.look(e, 9*time.Hour); calls > 0 {
		t.Errorf("what is final is looked at again: %d calls", calls)
	}
}

// alone hides that a settler can look at many payments at once.
type alone struct{ settlement.Settler }

// Looked at alone, each payment costs several questions: the test above measures something.
func TestPaymentsLookedAtAlone(t *testing.T) {
	const n = 200
	c := newCrowded(t, n, 10)
	e := c.engine(func(s settlement.Settler) settlement.Settler { return alone{s} })
	c.look(e, 0)
	calls, requests := c.look(e, 9*time.Hour)
	t.Logf("%d payments: %d calls in %d requests", n, calls, requests)
	if calls < 4*n {
		t.Errorf("%d calls for %d payments", calls, n)
	}
}

// A payment whose block was replaced is not taken for settled for good, and its neighbours are.
func TestReplacedBlockIsNoticed(t *testing.T) {
	const n, blocks = 300, 30
	c := newCrowded(t, n, blocks)
	if err := c.chain.Reorganize(10, true); err != nil {
		t.Fatal(err)
	}
	c.commit(crowdedLag)
	e := c.engine(nil)
	c.look(e, 9*time.Hour)
	if got, want := c.final(), n/blocks*(blocks-10); got != want {
		t.Errorf("%d payments are final, want %d", got, want)
	}
}

// While the chain does not answer nothing is decided, and nobody asks for each payment alone.
func TestReviewWithoutAChain(t *testing.T) {
	const n = 640
	c := newCrowded(t, n, 10)
	e := c.engine(nil)
	c.look(e, 0)
	c.commit(crowdedLag)
	c.rpc.FailAll(503)
	_, requests := c.look(e, 9*time.Hour)
	if requests > n/16 {
		t.Errorf("%d requests", requests)
	}
	if got := c.final(); got != 0 {
		t.Errorf("%d payments are final", got)
	}
}
