package paywall

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Zone bounds how many requests somebody may make in a window of time, which begins with the first of them. It is counted in the
// ledger, so it holds over all instances; each draws some of it ahead where there is much (see leaser), and never more than there is.
// Every request counts once, in the first zone that there is of ByKey, ByPayer and ByClient for what is known of who asks; what brings back
// what was paid before, with the same payment header, does not count, but for who comes with that of a plan instead of its token. A request
// that is refused by a zone has charged nothing, and its authorization stays unused.
//
// Where the ledger does not answer nothing is counted, and requests go on: to a claim, which needs the ledger, with a token, which does not,
// or to a 402, which costs nobody anything.
type Zone struct {
	By ZoneBy
	// Name is what shares the count: all routes of a site with a zone of one name and kind.
	Name     string
	Requests uint64
	Window   time.Duration
}

// ZoneBy says by whom a Zone counts, and is what RateLimit calls it.
type ZoneBy string

// The kinds of zones.
const (
	ByKey    ZoneBy = "key"    // the API key of a consumer
	ByPayer  ZoneBy = "payer"  // who has proven to be the payer: of a payment, or of the plan whose token comes
	ByClient ZoneBy = "client" // the client's address; of IPv6, its /64
	// ByRefused is the address again, and counts what is refused beside the other zones: API keys that are none, access tokens with a bad
	// signature, and payments that the offer, the clock or the chain refuses. When it is used up no new key and no new payment is looked at.
	ByRefused ZoneBy = "refused"
)

// ZoneKinds are all of them.
func ZoneKinds() []ZoneBy { return []ZoneBy{ByKey, ByPayer, ByClient, ByRefused} }

// codeRateLimit: more requests came than a zone allows.
const codeRateLimit = "rate_limit.exceeded"

// zonePatience is how long a request waits for the ledger to count it.
const zonePatience = time.Second

// due is one request of who in the zone, on a site.
func (z *Zone) due(site, who string, now time.Time) *due {
	n := strconv.FormatUint(z.Requests, 10) // where the limit changes, the count begins anew
	return &due{
		key:   digest("rate limit", string(z.By), z.Name, site, n, z.Window.String(), who),
		units: *uint256.NewInt(1), limit: *uint256.NewInt(z.Requests), until: now.Add(z.Window),
		policy: string(z.By), window: z.Window, renews: true,
	}
}

// zone finds the gate's zone of a kind; nil if there is none.
func (g *Gate) zone(by ZoneBy) *Zone {
	for i := range g.Zones {
		if g.Zones[i].By == by {
			return &g.Zones[i]
		}
	}
	return nil
}

// counter finds the zone that the request counts in, and as whose. payer is zero while nobody has proven it.
func (a *attempt) counter(payer common.Address) (z *Zone, who string) {
	if a.consumer != nil {
		if byKey := a.zone(ByKey); byKey != nil {
			return byKey, a.consumer.ID
		}
	}
	if payer != (common.Address{}) {
		if byPayer := a.zone(ByPayer); byPayer != nil {
			return byPayer, string(payer[:])
		}
	}
	return a.zone(ByClient), clientKey(a.Client)
}

// count counts the request, unless it has been, or refuses it.
func (a *attempt) count(ctx context.Context, e *Engine, payer common.Address) error {
	z, who := a.counter(payer)
	if z == nil || a.counted {
		return nil
	}
	now := e.store.Now()
	d := z.due(a.site(), who, now)
	if s, over := e.over.Get(d.key, now); over {
		return a.tooMany(d, &s, now)
	}
	bounded, cancel := context.WithTimeout(ctx, zonePatience)
	defer cancel()
	s, err := e.leases.take(bounded, d, 0)
	switch {
	case errors.Is(err, errUsedUp):
		again := now.Add(leaseDry) // others may give back what they have not used
		if s.until.Before(again) {
			again = s.until
		}
		e.over.Put(d.key, s, again, now)
		return a.tooMany(d, &s, now)
	case err != nil:
		if ctx.Err() == nil {
			a.Logger.Warn("a request could not be counted, so it was not limited", slog.String("zone", string(z.By)), slog.Any("error", err))
		}
		return nil
	}
	a.counted = true
	a.tell(d, &s)
	return nil
}

// countAlone is count for a request that has nothing to do with the ledger otherwise. Without a ledger it is not counted.
func (a *attempt) countAlone(payer common.Address) error {
	if z, _ := a.counter(payer); z == nil || a.counted {
		return nil
	}
	engine, release, err := a.Acquire()
	if err != nil {
		a.Logger.Warn("a request could not be counted, so it was not limited", slog.Any("error", err))
		return nil
	}
	defer release()
	return a.count(a.r.Context(), engine, payer)
}

// countUnpaid counts a request whose payment was refused while nobody had proven to be its payer: what it gets, an offer, it gets as one that
// carries none.
func (a *attempt) countUnpaid(r *refusal) *refusal {
	if a.met || r.payment != "" || r.status == http.StatusTooManyRequests || r.status >= http.StatusInternalServerError {
		return r
	}
	if refused, ok := errors.AsType[*refusal](a.countAlone(common.Address{})); ok {
		return refused
	}
	return r
}

// countHolder counts a request by which the buyer of a plan comes with the payment, and not with the token that it got for it. Where too many
// came it gets the token all the same, which it may have lost, and nothing else.
func (a *attempt) countHolder(ctx context.Context, p *ledger.Payment) error {
	if a.buysGrant() {
		return nil
	}
	refused, ok := errors.AsType[*refusal](a.count(ctx, a.engine, p.Payer))
	if !ok {
		return nil
	}
	refused.receipt = p
	refused.detail = "more requests came than are allowed; the plan is paid for, and its token comes with this answer: use it when the time of " +
		"Retry-After is over"
	return refused.of(p.ID)
}

// countRefused counts a key or a payment that was refused, by where it came from. It is counted though its sender may have left.
func (a *attempt) countRefused(e *Engine) {
	z := a.zone(ByRefused)
	if z == nil {
		return
	}
	now := e.store.Now()
	d := z.due(a.site(), clientKey(a.Client), now)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.r.Context()), zonePatience)
	defer cancel()
	s, err := e.leases.take(ctx, d, 0)
	switch {
	case errors.Is(err, errUsedUp), err == nil && s.left.IsZero():
		e.over.Put(d.key, s, s.until, now)
	case err != nil:
		a.Logger.Warn("what was refused could not be counted", slog.Any("error", err))
	}
}

// countForged counts an access token that names a key of ours, which did not sign it, or refuses who has sent too many. Who holds a good one
// is never asked, since an address may be that of many.
func (a *attempt) countForged() error {
	if a.zone(ByRefused) == nil {
		return nil
	}
	engine, release, err := a.Acquire()
	if err != nil {
		a.Logger.Warn("what was refused could not be counted", slog.Any("error", err))
		return nil
	}
	defer release()
	if err := a.shutOut(engine); err != nil {
		return err
	}
	a.countRefused(engine)
	return nil
}

// shutOut refuses who has sent too much that was refused. What this process has not seen itself it learns with the next that it refuses.
func (a *attempt) shutOut(e *Engine) error {
	z := a.zone(ByRefused)
	if z == nil {
		return nil
	}
	now := e.store.Now()
	d := z.due(a.site(), clientKey(a.Client), now)
	if s, over := e.over.Get(d.key, now); over {
		return a.tooMany(d, &s, now)
	}
	return nil
}

// tooMany is a 429 that says when the window ends.
func (a *attempt) tooMany(d *due, s *standing, now time.Time) *refusal {
	a.tell(d, s)
	return &refusal{
		status: http.StatusTooManyRequests, code: codeRateLimit, wait: s.until.Sub(now),
		detail: "more requests came than are allowed, by " + d.policy + "; this request charged nothing, and a payment that came with it is as good " +
			"as before: send the same request again when the time of Retry-After is over",
	}
}

// zoneCount is how a zone stands after the request was counted.
type zoneCount struct {
	due      *due
	standing standing
}

// tell has the answer say how a zone stands, at the last moment: so it is in no copy of the upstream's answer that is kept.
func (a *attempt) tell(d *due, s *standing) {
	a.zoned = append(a.zoned, zoneCount{d, *s})
	if a.zoneWriter != nil {
		return
	}
	a.zoneWriter = &headerWriter{ResponseWriter: a.w, before: func(h http.Header, _ int) {
		for i := range a.zoned {
			addRateLimit(h, a.zoned[i].due, &a.zoned[i].standing)
		}
	}}
	a.w = a.zoneWriter
}

// toldZones is for answers that somebody else writes, as Caddy does for errors.
func (a *attempt) toldZones() {
	if a.zoneWriter != nil {
		a.zoneWriter.headers(http.StatusOK)
	}
}
