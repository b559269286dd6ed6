package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// How clients behave.
const (
	// offerFor is how many things a client buys by one offer.
	offerFor = 8
	// answerPatience is how long a client waits for one answer: longer than Caddy needs to say that it does not know.
	answerPatience = time.Minute
	// askAgain is the pause before a client that was put off asks again.
	askAgain = 500 * time.Millisecond
	// goodFor is how long a signature is good: longer than anybody asks again.
	goodFor = 5 * time.Minute
)

// flows are those that things are sold by; each has a path of its own.
var flows = []string{"upfront", "authorization", "deferred"}

// told is what a client knows at last about what it wanted.
type told uint8

const (
	// unsure: it was put off, or heard nothing, to the end.
	unsure told = iota
	served
	// refused: it was told that the payment is no good.
	refused
	// void: the upstream failed, and nothing was charged.
	void
	// held: the upstream failed, and the payment goes back.
	held
	// used: it was told that its payment was used already, by an answer that it did not get.
	used
	// left: it went away and never came back.
	left
)

// purchase is one authorization, and what its client was told of it.
type purchase struct {
	nonce common.Hash
	tx    common.Hash // of the receipt
	payer int32
	flow  uint8
	told  told
	// answers are the 200s that it got.
	answers uint8
	// broke: one of its connections was given up, or ended before an answer.
	broke bool

	// What the chain and the ledger say is for the judge to fill in.
	transfers                            uint8
	moved                                common.Hash
	known, settled, delivered, refunding bool
	ended                                bool
	// by is the place of the earlier payment of this payer that served in its place; 0: none did. Places count from 1.
	by int32
}

// crowd are the clients.
type crowd struct {
	clients []*client
	enough  int64
	// gotten is how often something was served; over is closed when no client is to begin anything any more.
	gotten, begun atomic.Int64
	over          chan struct{}
	once          sync.Once
}

func newCrowd(c *soakConfig, addr string) *crowd {
	w := &crowd{enough: int64(c.payments), over: make(chan struct{})}
	for i := range c.clients {
		// Each client has an address of its own, as clients have: refusals are counted by address.
		from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(1+i%250))}
		k := &client{crowd: w, host: addr, random: rand.New(rand.NewPCG(1, uint64(i))), why: map[string]int{}}
		for j := range k.wires {
			k.wires[j] = wire{addr: addr, from: from}
		}
		for n := i; n < c.payers; n += c.clients {
			k.accounts = append(k.accounts, n)
		}
		w.clients = append(w.clients, k)
	}
	return w
}

// close lets no client begin anything any more.
func (w *crowd) close() { w.once.Do(func() { close(w.over) }) }

// shop lets all clients buy, until close, and finish what they have begun, until ctx ends.
func (w *crowd) shop(ctx context.Context) {
	var all sync.WaitGroup
	for _, c := range w.clients {
		all.Go(func() { c.shop(ctx) })
	}
	all.Wait()
}

func (w *crowd) bought() (all []purchase) {
	for _, c := range w.clients {
		all = append(all, c.bought...)
	}
	return all
}

func (w *crowd) times() (all []time.Duration) {
	for _, c := range w.clients {
		all = append(all, c.times...)
	}
	return all
}

// refusals are what clients were told beside what they had paid for, by how often.
func (w *crowd) refusals() map[string]int {
	sum := map[string]int{}
	for _, c := range w.clients {
		for why, n := range c.why {
			sum[why] += n
		}
	}
	return sum
}

// client buys one thing after the other.
type client struct {
	crowd    *crowd
	wires    [2]wire
	host     string
	random   *rand.Rand
	accounts []int

	offers [3]string // by flow
	uses   [3]int
	bought []purchase
	times  []time.Duration // of some answers
	why    map[string]int
}

func (c *client) shop(ctx context.Context) {
	defer func() {
		for i := range c.wires {
			c.wires[i].close()
		}
	}()
	for ctx.Err() == nil {
		select {
		case <-c.crowd.over:
			return
		default:
		}
		if c.crowd.gotten.Load() >= c.crowd.enough {
			return
		}
		c.buy(ctx)
	}
}

// buy buys one thing, somehow.
func (c *client) buy(ctx context.Context) {
	flow := uint8(0)
	switch n := c.random.IntN(100); {
	case n < 5:
		flow = 1
	case n < 10:
		flow = 2
	}
	path := "/" + flows[flow]
	if flow > 0 && c.random.IntN(20) == 0 {
		path += brokenPath
	}
	offer, ok := c.offer(ctx, flow)
	if !ok {
		return
	}
	payer := c.accounts[len(c.bought)%len(c.accounts)]
	s, err := (&wallet{end: time.Now().Add(goodFor)}).signed(payer, price)
	if err != nil {
		c.why[err.Error()]++
		return
	}
	header, err := s.header(offer, first)
	if err != nil {
		c.why[err.Error()]++
		return
	}
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n%s: %s\r\n\r\n", path, c.host, x402.HeaderSignature, header)
	p := purchase{nonce: s.auth.Nonce, payer: int32(payer), flow: flow}
	c.crowd.begun.Add(1)
	c.pay(ctx, request, &p)
	if p.told == served {
		c.crowd.gotten.Add(1)
	}
	c.bought = append(c.bought, p)
}

// offer gives one that was used only a few times.
func (c *client) offer(ctx context.Context, flow uint8) (string, bool) {
	if c.uses[flow]%offerFor == 0 {
		request := fmt.Appendf(nil, "GET /%s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n\r\n", flows[flow], c.host)
		a, err := c.wires[0].do(ctx, request, time.Now().Add(answerPatience))
		if err != nil || a.status != 402 {
			c.why["no offer: "+reason(a, err)]++
			wait(ctx, time.Now().Add(askAgain))
			return "", false
		}
		c.offers[flow] = a.offer
	}
	c.uses[flow]++
	return c.offers[flow], true
}

// pay sends a payment in one of the ways that clients have.
func (c *client) pay(ctx context.Context, request []byte, p *purchase) {
	switch n := c.random.IntN(1000); {
	case n < 20:
		c.twice(ctx, request, p)
	case n < 30: // it leaves, and comes back
		c.leave(ctx, request, p)
		wait(ctx, time.Now().Add(c.some(2000)))
	case n < 33:
		if c.leave(ctx, request, p); p.told == unsure {
			p.told = left
		}
	}
	for deadline := time.Now().Add(finishing); p.told == unsure && ctx.Err() == nil && time.Now().Before(deadline); {
		began := time.Now()
		a, err := c.wires[0].do(ctx, request, began.Add(answerPatience))
		if c.learn(p, &a, err); p.told == unsure {
			wait(ctx, time.Now().Add(askAgain))
		} else if len(c.bought)%offerFor == 0 {
			c.times = append(c.times, time.Since(began))
		}
	}
}

func (c *client) some(most int) time.Duration {
	return time.Duration(1+c.random.IntN(most)) * time.Millisecond
}

// leave hangs up after some time.
func (c *client) leave(ctx context.Context, request []byte, p *purchase) {
	a, err := c.wires[0].do(ctx, request, time.Now().Add(c.some(2000)))
	c.learn(p, &a, err)
}

// twice sends the same over two connections at once.
func (c *client) twice(ctx context.Context, request []byte, p *purchase) {
	var answers [2]answer
	var errs [2]error
	var both sync.WaitGroup
	for i := range c.wires {
		both.Go(func() { answers[i], errs[i] = c.wires[i].do(ctx, request, time.Now().Add(answerPatience)) })
	}
	both.Wait()
	for i := range answers {
		c.learn(p, &answers[i], errs[i])
	}
}

// learn draws the conclusions of an answer.
func (c *client) learn(p *purchase, a *answer, err error) {
	switch {
	case err != nil:
		p.broke = true
		c.why[reason(*a, err)]++
		return
	case a.status == 200:
		p.answers++
		p.told = served
		var receipt x402.SettlementResponse
		if err := x402.DecodeHeader(a.receipt, 1<<16, &receipt); err != nil {
			c.why["no receipt: "+err.Error()]++
			return
		}
		p.tx = common.HexToHash(receipt.Transaction)
		return
	}
	why := reason(*a, nil)
	c.why[why]++
	switch {
	case p.told == served:
	case a.status == 402 && reasonOf(a) == string(x402.ReasonNonceUsed):
		p.told = used
	case a.status == 402:
		p.told = refused
	case a.status == 500 && a.standing == "void":
		p.told = void
	case a.status == 500 && a.standing == "refund_pending":
		p.told = held
	}
}

// reasonOf is the code of a refusal.
func reasonOf(a *answer) string {
	var offer x402.PaymentRequired
	if err := x402.DecodeHeader(a.offer, 1<<16, &offer); err != nil {
		return ""
	}
	return offer.Error
}
