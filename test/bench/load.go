package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// failurePause is how long a payer waits after a pair that failed, so that a server that refuses at once is not flooded.
const failurePause = time.Second

// sale is one pair of requests: the one that is answered 402, and the one that pays.
type sale struct {
	payer common.Address
	nonce common.Hash
	// began is when the pair began, sent when its payment was sent (zero: it never was), ended when all was over.
	began, sent, ended time.Time
	status             int         // of the paid request; 0: no answer
	tx                 common.Hash // what the receipt says
	why                string      // what went wrong, in few words; "" for a 200
}

func (s *sale) ok() bool { return s.why == "" }

// payer buys again and again, one after the other.
type payer struct {
	wire    wire
	host    string
	account common.Address
	purse   []signed
	sign    func() (signed, error) // for when the purse is empty
	late    int                    // how often it was
	sales   []sale
}

// times of a load. What ends before from is warm-up. It is measured for window, and if by then fewer sales have ended than there
// are payers, for some steps more, so that what is too slow for the window is not taken for nothing; extra at most.
type times struct {
	from                time.Time
	window, step, extra time.Duration
	patience            time.Duration // of a client who waits for an answer
}

// period is a load while it runs.
type period struct {
	times
	ended atomic.Int64  // sales that ended in the measured time
	over  chan struct{} // closed at the end of the measured time; nothing is begun after it
	to    time.Time     // its end, once over is closed
}

// keep waits for the end of the measured time.
func (p *period) keep(ctx context.Context, payers int) {
	defer close(p.over)
	for p.to = p.from.Add(p.window); wait(ctx, p.to); p.to = p.to.Add(p.step) {
		if p.ended.Load() >= int64(payers) || !p.to.Before(p.from.Add(p.window+p.extra)) {
			return
		}
	}
}

// load lets payers buy from a server, and gives all that they bought; late is how many authorizations had to be signed meanwhile.
func load(ctx context.Context, addr string, payers []*payer, p *period) (sales []sale, late int) {
	var running sync.WaitGroup
	running.Go(func() { p.keep(ctx, len(payers)) })
	for _, b := range payers {
		b.host, b.wire.addr = addr, addr
		running.Go(func() {
			defer b.wire.close()
			b.buy(ctx, p)
		})
	}
	running.Wait()
	for _, b := range payers {
		sales, late = append(sales, b.sales...), late+b.late
	}
	return sales, late
}

func (p *payer) buy(ctx context.Context, during *period) {
	for {
		select {
		case <-during.over:
			return
		default:
		}
		s := p.pair(ctx, during.patience)
		p.sales = append(p.sales, s)
		if s.ended.After(during.from) {
			during.ended.Add(1)
		}
		if s.ok() {
			continue
		}
		select {
		case <-during.over:
		case <-time.After(failurePause):
		}
	}
}

// next takes an authorization out of the purse.
func (p *payer) next() (s signed, err error) {
	if len(p.purse) == 0 {
		p.late++
		return p.sign()
	}
	s, p.purse = p.purse[0], p.purse[1:]
	return s, nil
}

// pair asks for the price, and pays it.
func (p *payer) pair(ctx context.Context, patience time.Duration) (s sale) {
	s = sale{payer: p.account, began: time.Now()}
	defer func() { s.ended = time.Now() }()
	get := "GET /paid HTTP/1.1\r\nHost: " + p.host + "\r\nAccept: */*\r\n"

	a, err := p.wire.do(ctx, []byte(get+"\r\n"), s.began.Add(patience))
	if err != nil || a.status != 402 {
		s.why = "no offer: " + reason(a, err)
		return s
	}
	authorization, err := p.next()
	if err != nil {
		s.why = err.Error()
		return s
	}
	header, err := authorization.header(a.offer, first)
	if err != nil {
		s.why = err.Error()
		return s
	}
	s.nonce, s.sent = authorization.auth.Nonce, time.Now()
	a, err = p.wire.do(ctx, []byte(get+x402.HeaderSignature+": "+header+"\r\n\r\n"), s.sent.Add(patience))
	s.status = a.status
	if err != nil || a.status != 200 {
		s.why = reason(a, err)
		return s
	}
	var receipt x402.SettlementResponse
	if err := x402.DecodeHeader(a.receipt, 1<<16, &receipt); err != nil {
		s.why = "no receipt: " + err.Error()
		return s
	}
	s.tx = common.HexToHash(receipt.Transaction)
	return s
}

// reason says in few words why an answer is none that was hoped for.
func reason(a answer, err error) string {
	switch {
	case err != nil && isTimeout(err):
		return "no answer in time"
	case err != nil:
		words := strings.Split(err.Error(), ": ")
		return "connection: " + words[len(words)-1]
	}
	why := fmt.Sprint(a.status)
	var problem struct {
		Code  string `json:"code"`
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(a.problem), &problem) == nil && problem.Code+problem.Error != "" {
		return why + " " + or(problem.Code, problem.Error)
	}
	var offer x402.PaymentRequired
	var receipt x402.SettlementResponse
	if x402.DecodeHeader(a.receipt, 1<<16, &receipt) == nil && receipt.ErrorReason != "" {
		why += " " + string(receipt.ErrorReason)
	} else if x402.DecodeHeader(a.offer, 1<<16, &offer) == nil && offer.Error != "" {
		why += " " + offer.Error
	}
	return why
}
