package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// codeNotStored is told under a key whose answer can't be given again.
const codeNotStored = "idempotency.response_not_stored"

// How clients behave.
const (
	// patience is how long a client waits for one answer: longer than the instances need to say that they don't know.
	patience = 11 * time.Second
	// offerPatience is the same for an offer, which costs nobody anything.
	offerPatience = 3 * time.Second
)

// intent is one thing that a client wants: it is not done before the client has it, or has been told that it is lost.
type intent struct {
	stays  bool // its client does not leave before it has an answer
	id     string
	payer  int
	method string
	path   string
	flow   string // by which it is sold
	pass   int    // which pass, or -1
	// key is the Idempotency-Key that its requests carry, if any.
	key   string
	keys  int
	begun time.Time

	authorizations []*authorization
	outcome        outcome
	// token: it was served to the holder of a pass, without another payment.
	token bool
}

// outcome is how an intent ended, as its client sees it.
type outcome string

const (
	unfinished outcome = "unfinished"
	served     outcome = "served"
	// lostAnswer: the payment is used, and the answer broke off on the way to the client.
	lostAnswer outcome = "answer lost on the way"
	// abandoned: the client left and never came back.
	abandoned outcome = "abandoned"
	// refusedDebtor: the client owes something that it did not pay.
	refusedDebtor outcome = "refused as a debtor"
	// repaid: it was for a debt.
	repaid outcome = "paid for a debt"
)

// authorization is one that a client signed, with the header that carries it.
type authorization struct {
	nonce  common.Hash
	header string
	// uncertain: its client was put off, or heard nothing.
	uncertain bool
}

// payer is a customer: it wants one thing after the other, and remembers what it paid and what it got.
type payer struct {
	number  int
	account devnet.Account
	random  *rand.Rand
	http    *http.Client
	shops   []string // addresses of the instances
	now     func() time.Time
	cheats  *cheat // nil: it is honest

	tokens  map[int]string // by pass
	intents []*intent

	mu       sync.Mutex
	attempts []*attempt
}

func newPayer(number int, random *rand.Rand, shops []string) *payer {
	// Each payer has an address of its own, as customers have: refusals are counted by address.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(number+1))}, Timeout: 2 * time.Second}
	return &payer{
		number: number, account: devnet.Payer(number), random: random, shops: shops, now: time.Now, tokens: make(map[int]string),
		http: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4}},
	}
}

// shop wants things until stop is closed, and then finishes what it has begun, until ctx ends.
func (p *payer) shop(ctx context.Context, stop <-chan struct{}) {
	defer p.http.CloseIdleConnections()
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(100+p.random.IntN(1500)) * time.Millisecond):
		}
		in := p.want()
		p.begin(in)
		p.pursue(ctx, in)
	}
}

// begin notes that something is wanted.
func (p *payer) begin(in *intent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intents = append(p.intents, in)
}

func (p *payer) want() *intent {
	in := &intent{payer: p.number, pass: -1, method: http.MethodGet, flow: ledger.FlowUpfront, begun: time.Now(), outcome: unfinished}
	in.id = intentID(p.number, len(p.intents))
	switch n := p.random.IntN(100); {
	case n < 25:
		in.path = "/get/" + in.id
	case n < 42:
		in.method, in.path = http.MethodPost, "/post/"+in.id
	case n < 60:
		in.flow = ledger.FlowAuthorization
	case n < 80:
		in.flow = ledger.FlowDeferred
	default:
		in.pass = p.random.IntN(passes)
		in.path = passPath(in.pass) + in.id
	}
	if in.flow != ledger.FlowUpfront {
		in.path = "/" + in.flow + "/" + in.id
		if p.random.IntN(5) < 2 {
			in.method = http.MethodPost
		}
	}
	if p.random.IntN(2) == 0 {
		in.newKey()
	}
	return in
}

// newKey takes a key: the first one, or another one because what was paid under the last one goes back.
func (in *intent) newKey() { in.key, in.keys = fmt.Sprintf("%s-%d", in.id, in.keys+1), in.keys+1 }

// pursue goes after an intent until it is served or lost.
func (p *payer) pursue(ctx context.Context, in *intent) {
	if token := p.tokens[in.pass]; token != "" && p.random.IntN(2) == 0 {
		p.useToken(ctx, in, token)
		return
	}
	if in.pass >= 0 && p.random.IntN(3) == 0 {
		p.race(ctx, in)
		return
	}
	if p.cheats != nil && in.flow == ledger.FlowDeferred && p.random.IntN(2) == 0 {
		p.cheat(ctx, in)
		return
	}
	if in.flow == ledger.FlowDeferred && p.random.IntN(3) == 0 {
		p.burst(ctx, in)
		return
	}
	p.buy(ctx, in)
}

// buy signs and pays until it is served or lost.
func (p *payer) buy(ctx context.Context, in *intent) {
	for ctx.Err() == nil && in.outcome == unfinished {
		a := p.sign(ctx, in)
		if a == nil {
			return
		}
		if !in.stays && p.random.IntN(25) == 0 {
			if p.leave(ctx, in, a); p.random.IntN(3) == 0 {
				in.outcome = abandoned
				return
			}
		}
		p.pay(ctx, in, a)
	}
}

// useToken asks under a pass that was bought.
func (p *payer) useToken(ctx context.Context, in *intent, token string) {
	for ctx.Err() == nil {
		a := p.send(ctx, in, p.anyShop(), patience, "Authorization", "Bearer "+token)
		a.Token = true
		p.keep(a)
		if a.Status == http.StatusOK {
			in.outcome, in.token = served, true
			return
		}
		if !a.broken() && a.Status == http.StatusPaymentRequired {
			return // it stays unfinished, which is held against the shop
		}
		p.pause(ctx, 300, 700)
	}
}

// race is what clients do that send several requests at once: each finds a price, and each pays.
func (p *payer) race(ctx context.Context, in *intent) {
	signed := []*authorization{p.sign(ctx, in), p.sign(ctx, in)}
	if slices.Contains(signed, nil) {
		return
	}
	got := make([]*attempt, len(signed))
	var wg sync.WaitGroup
	for i, a := range signed {
		wg.Go(func() {
			got[i] = p.send(ctx, in, i%len(p.shops), patience, x402.HeaderSignature, a.header)
			got[i].Nonce = a.nonce
			p.keep(got[i])
		})
	}
	wg.Wait()
	for _, a := range got {
		p.learn(in, a)
	}
	for i := 0; ctx.Err() == nil && in.outcome == unfinished; i++ {
		p.pause(ctx, 500, 1500)
		p.pay(ctx, in, signed[i%len(signed)])
		if i%4 == 3 { // all may have expired
			if a := p.sign(ctx, in); a != nil {
				signed = append(signed, a)
			}
		}
	}
}

// sign asks for the price, of any shop that answers, and signs; nil when the time is over.
func (p *payer) sign(ctx context.Context, in *intent) *authorization {
	for ctx.Err() == nil {
		a := p.send(ctx, in, p.anyShop(), offerPatience)
		if a.offer == nil || len(a.offer.Accepts) == 0 {
			if a.Status == http.StatusOK {
				p.keep(a) // without a payment!
			}
			p.pause(ctx, 100, 400)
			continue
		}
		signed, err := p.authorize(in, a.offer)
		if err != nil {
			a.Error = err.Error()
			p.keep(a)
			return nil
		}
		p.mu.Lock()
		in.authorizations = append(in.authorizations, signed)
		p.mu.Unlock()
		return signed
	}
	return nil
}

// hastily is how long some signatures are good, at least: what is stuck for that long can't be paid by them any more.
const hastily = 17 * time.Second

func (p *payer) authorize(in *intent, o *x402.PaymentRequired) (*authorization, error) {
	r := o.Accepts[0]
	amount, err := x402.ParseAtomic(r.Amount)
	if err != nil {
		return nil, err
	}
	a := x402.Authorization{From: p.account.Address, To: common.HexToAddress(r.PayTo), Value: amount}
	end := p.now().Add(time.Duration(r.MaxTimeoutSeconds) * time.Second)
	if in.flow != ledger.FlowDeferred && p.random.IntN(2) == 0 {
		end = p.now().Add(hastily + time.Duration(p.random.IntN(4))*time.Second)
	}
	a.ValidBefore = *uint256.NewInt(uint64(end.Unix()))
	for i := range a.Nonce {
		a.Nonce[i] = byte(p.random.Uint32())
	}
	domain := x402.Domain{Name: r.Extra.Name, Version: r.Extra.Version, ChainID: devnet.ChainID, Contract: common.HexToAddress(r.Asset)}
	sig, err := x402.Sign(a.Digest(domain.Separator()), p.account.Key)
	if err != nil {
		return nil, err
	}
	header, err := x402.EncodeHeader(o.Pay(r, &a, sig))
	return &authorization{nonce: a.Nonce, header: header}, err
}

// leave pays, and hangs up before the answer.
func (p *payer) leave(ctx context.Context, in *intent, a *authorization) {
	got := p.send(ctx, in, p.anyShop(), time.Duration(20+p.random.IntN(2500))*time.Millisecond, x402.HeaderSignature, a.header)
	got.Nonce = a.nonce
	p.keep(got)
	p.learn(in, got)
	p.pause(ctx, 100, 2000)
}

// pay sends the same payment until the client knows more; some clients lose patience and sign anew, as stock clients do.
func (p *payer) pay(ctx context.Context, in *intent, a *authorization) {
	for ctx.Err() == nil && in.outcome == unfinished {
		if again := p.sendCopies(ctx, in, a); !again {
			return
		}
		a.uncertain = true
		if p.random.IntN(8) == 0 {
			return
		}
		p.pause(ctx, 300, 1700)
	}
}

// sendCopies sends a payment to one shop or to several at once; again is false when there is an answer.
func (p *payer) sendCopies(ctx context.Context, in *intent, a *authorization) (again bool) {
	order := p.random.Perm(len(p.shops))
	copies := 1
	if p.random.IntN(4) == 0 {
		copies += 1 + p.random.IntN(len(order)-1)
	}
	got := make([]*attempt, copies)
	var wg sync.WaitGroup
	for i := range copies {
		wg.Go(func() {
			got[i] = p.send(ctx, in, order[i], patience, x402.HeaderSignature, a.header)
			got[i].Nonce = a.nonce
			p.keep(got[i])
		})
	}
	wg.Wait()
	for _, g := range got {
		p.learn(in, g)
	}
	// A copy may be told to wait while the other one is refused: it is over when one is told so.
	return !slices.ContainsFunc(got, func(g *attempt) bool { return !g.putOff() })
}

// learn draws the conclusions of an answer.
func (p *payer) learn(in *intent, a *attempt) {
	switch {
	case a.Status == http.StatusOK && !a.broken():
		in.outcome = served
		if in.pass >= 0 && a.accessToken != "" {
			p.tokens[in.pass] = a.accessToken
		}
	case in.outcome == served:
	case a.Code == codeNotStored && !a.Paid && in.flow != ledger.FlowUpfront:
		in.newKey() // the upstream may have done it, and nothing was charged
	case a.Code == string(x402.ReasonNonceUsed), a.Code == codeNotStored:
		in.outcome = lostAnswer // whether that can be is judged later
	case a.Code == string(paywall.ReasonOwed):
		in.outcome = refusedDebtor // so is this
	}
	// Under a key that was answered, and paid for, there is no other answer.
	if in.key != "" && (a.Status == http.StatusBadGateway && !a.Void || a.Held || a.Code == string(paywall.ReasonRefund)) {
		in.newKey()
	}
}

func (p *payer) anyShop() int { return p.random.IntN(len(p.shops)) }

// pause waits between least and most milliseconds.
func (p *payer) pause(ctx context.Context, least, most int) {
	select {
	case <-time.After(time.Duration(least+p.random.IntN(most-least)) * time.Millisecond):
	case <-ctx.Done():
	}
}

func (p *payer) keep(a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts = append(p.attempts, a)
}
