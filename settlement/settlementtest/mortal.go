package settlementtest

import (
	"context"
	"slices"
	"sync"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// mortal is the journal as one process sees it that dies right after it has recorded something: nothing of it follows.
type mortal struct {
	*Journal

	mu   sync.Mutex
	left int // records until then
	last settlement.Transaction
	died chan struct{}
}

func (m *mortal) Record(ctx context.Context, t settlement.Transaction) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 {
		return errCrash
	}
	if err := m.Journal.Record(ctx, t); err != nil {
		return err
	}
	if m.left--; m.left == 0 {
		m.last = t
		close(m.died)
		return errCrash
	}
	return nil
}

// Two processes share a wallet, and one dies between a record and its broadcast. Whatever the other one sends waits
// behind that nonce, until the other one broadcasts what the dead one has recorded: then all go through, each once.
func oneOfTwoDies(c *Case) {
	const n = 20
	m := &mortal{Journal: c.Journal, left: 2, died: make(chan struct{})}
	doomed := c.H.New(c.TB, Setup{URL: c.Proxy.URL(), Key: c.Wallet, Journal: m})
	life, end := context.WithCancel(c.Ctx())
	defer end()
	go func() {
		select {
		case <-m.died:
			end()
		case <-life.Done():
		}
	}()
	intents := make([]settlement.Intent, n)
	for i := range intents {
		intents[i] = c.Sign(c.H.Fresh(), nil)
		head, err := c.Settler.Check(c.Ctx(), intents[i])
		c.Must(err)
		intents[i].ClaimBlock, intents[i].Payment = head, "pay_"+intents[i].Authorization.Nonce.Hex()
	}
	theirs, ours := intents[:n/2], intents[n/2:]
	var dead, alive sync.WaitGroup
	for _, in := range theirs {
		dead.Go(func() { doomed.Settle(life, in) })
	}
	dead.Wait()
	outcomes := make([]settlement.Outcome, len(ours))
	for i, in := range ours {
		alive.Go(func() { outcomes[i] = c.Settler.Settle(c.Ctx(), in) })
	}
	for _, in := range ours {
		c.WaitFor("the survivor has recorded all", func() bool {
			txs, err := c.Journal.Transactions(c.Context(), in.Payment)
			return err == nil && len(txs) > 0
		})
	}
	c.Commit(1)
	if c.Nonce() > m.last.Nonce {
		c.Errorf("%d transactions are mined, but number %d was never broadcast", c.Nonce(), m.last.Nonce)
	}
	for _, in := range theirs { // as whoever reconciles does
		if txs, err := c.Journal.Transactions(c.Context(), in.Payment); err == nil && len(txs) > 0 {
			c.WantSettled(in, c.ResolveUntil(in, settlement.Settled))
		}
	}
	alive.Wait()
	for i, in := range ours {
		c.WantSettled(in, outcomes[i])
	}
	for _, in := range theirs { // their clients come again
		c.WantSettled(in, c.Settle(in))
	}
	c.WantReceived(n)
	c.wantNoGap()
}

// wantNoGap demands that all recorded transactions are mined, with one nonce after another.
func (c *Case) wantNoGap() {
	c.Helper()
	txs := c.Journal.All()
	slices.SortFunc(txs, func(a, b settlement.Transaction) int { return int(a.Nonce) - int(b.Nonce) })
	n := len(txs)
	if txs[n-1].Nonce != txs[0].Nonce+uint64(n-1) || c.Nonce() != txs[n-1].Nonce+1 {
		c.Errorf("%d transactions with the nonces %d to %d, %d mined", n, txs[0].Nonce, txs[n-1].Nonce, c.Nonce())
	}
}
