package refunds

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// alerts are how often somebody was told that a payment can't be paid back: by the log, and by an event.
type alerts struct{ log, event int }

func (c *chaos) alertsOf(id string) (a alerts) {
	for _, in := range c.instances {
		a.log += in.says("caddy x402 refunds retry " + id)
		a.event += in.says(toldOf("payment_refund_failed", id))
	}
	return a
}

// unheard is how long after it was written in the ledger that a refund has failed a kill may have kept that from being told.
const unheard = 2 * time.Second

// killedAfter reports whether an instance was killed soon after a time.
func (c *chaos) killedAfter(at time.Time) bool {
	for _, in := range c.instances {
		for _, killed := range in.killed() {
			if !killed.Before(at) && killed.Sub(at) < unheard {
				return true
			}
		}
	}
	return false
}

// alarm has a refund that failed tried again, though its cause is not gone, while nothing breaks: it fails again, and the operator is told
// in each way that there is.
func (c *chaos) alarm(s ledger.Store) {
	c.t.Helper()
	var failed []string
	for _, r := range c.records(s) {
		if r.Payment.State() == ledger.StateRefundFailed && r.Payment.Payer == c.buyers[0].Account.Address {
			failed = append(failed, r.Payment.ID)
		}
	}
	if len(failed) == 0 {
		c.t.Error("no refund has failed")
		return
	}
	const counter, gauge = `caddy_x402_refunds_total{network="eip155:84532",outcome="failed"}`, `caddy_x402_payments{state="REFUND_FAILED"}`
	counted := func() (n int) {
		for _, in := range c.instances {
			n += in.counts(c.operator, counter)
		}
		return n
	}
	id := failed[0]
	told, before := c.alertsOf(id), counted()
	if ran := command(c.t, c.dir, "retry", id, "--address", c.instances[0].admin); ran.Code != 0 {
		c.t.Fatalf("code %d\n%s%s", ran.Code, ran.Out, ran.Err)
	}
	want := alerts{told.log + 1, told.event + 1}
	rig.Until(c.t, "the operator was not told that the refund has failed again", func() bool {
		return c.alertsOf(id) == want && counted() == before+1
	})
	for _, in := range c.instances {
		rig.Until(c.t, fmt.Sprintf("%s is not %d", gauge, len(failed)), func() bool { return in.counts(c.operator, gauge) == len(failed) })
		rig.Until(c.t, "health wants no attention", func() bool {
			a := c.operator.Get("http://"+in.Addr+"/health", "Host", "shop.test")
			_, attention, _ := strings.Cut(a.Body, `"attention":`)
			return strings.Contains(attention, `"REFUND_FAILED"`)
		})
	}
}

// ask asks the instances what became of each payment, as anybody may who has its id.
func (c *chaos) ask(records []ledger.Record) map[string]status {
	c.t.Helper()
	said := make(map[string]status)
	for i := range records {
		if p := &records[i].Payment; !p.PaysBack() {
			in := c.instances[i%len(c.instances)]
			said[p.ID] = statusAt(c.t, c.operator, "http://"+in.Addr+"/x402/payments/"+p.ID, "Host", "shop.test")
		}
	}
	return said
}
