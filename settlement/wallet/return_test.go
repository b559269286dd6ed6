package wallet_test

import (
	"context"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
)

// slowJournal has recorded long before it says so.
type slowJournal struct {
	*settlementtest.Journal
	recorded chan struct{}
	answer   chan struct{}
}

func (j *slowJournal) Record(ctx context.Context, t settlement.Transaction) error {
	err := j.Journal.Record(ctx, t)
	j.recorded <- struct{}{}
	<-j.answer
	return err
}

// Who leaves while the journal records, and comes back, finds what was recorded: it is carried once.
func TestComesBackWhileItIsRecorded(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	j := &slowJournal{Journal: c.Journal, recorded: make(chan struct{}, 1), answer: make(chan struct{})}
	s := start(t, settlementtest.Setup{URL: c.Proxy.URL(), Key: c.Wallet, Journal: j}, options{})
	in := c.Claimed()
	ctx, leave := context.WithCancel(c.Ctx())
	first := make(chan settlement.Outcome, 1)
	c.Stall()
	go func() { first <- s.Settle(ctx, in) }()
	<-j.recorded
	leave()
	if out := <-first; out.Status != settlement.Unknown {
		t.Fatalf("got %+v", out)
	}
	again := make(chan settlement.Outcome, 1)
	go func() { again <- s.Settle(c.Ctx(), in) }()
	c.WaitFor("it is broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > 0 })
	close(j.answer)
	time.Sleep(100 * time.Millisecond)
	c.H.Chain.Resume()
	c.WantSettled(in, <-again)
	time.Sleep(200 * time.Millisecond)
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}
