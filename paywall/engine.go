package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/internal/expiring"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Settings are what may change while an engine runs; they come from the newest live configuration.
type Settings struct {
	// Payees are all networks that the reconciler can ask, by chain and asset.
	Payees []*Payee
	// SettleTimeout bounds how long a request waits for its settlement. Default: 45 s.
	SettleTimeout time.Duration
	// HoldTTL is how long a request that died keeps its payment from being served by another.
	// A living one renews it. Default: 15 s.
	HoldTTL time.Duration
	// CollectWithin is how long a paid and unserved payment waits for its payer before it is held
	// for refund. Default: 5 min.
	CollectWithin time.Duration
	// ReconcileEvery is how often the reconciler looks for payments that wait. Default: 2 s.
	ReconcileEvery time.Duration
	// MaxStale is how long after the last revocation could have been heard of the tokens of plans are still taken: the ledger may not
	// answer for so long. Default: 30 s.
	MaxStale time.Duration
	// Revoked is what verifiers of tokens look into; the engine keeps it up to date. It stays the same as long as the engine runs.
	// Default: the engine's own.
	Revoked *token.Revoked
	// Retention is how long the ledger keeps what closed payments left behind (see ledger.Books.Sweep); 0: for ever.
	Retention time.Duration
	// Refunds says how what was not delivered goes back; nil: not by itself.
	Refunds *Refunds
	// Now is the clock that authorizations are judged by: the wall's, or the chain's head where that
	// runs ahead. Default: time.Now.
	Now func() time.Time
	// Observe hears of what happens, for metrics; may be nil.
	Observe func(Observation)
	// Timed hears how long each stage of a payment took, for metrics; may be nil.
	Timed func(Stage, time.Duration)
	// Happened hears of each fact that this process has written, and must not wait for anything; may be nil. Who must hear of all of
	// them, whatever dies, reads a Feed.
	Happened func(Fact)
	Logger   *slog.Logger
}

func (s Settings) withDefaults() Settings {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&s.SettleTimeout, 45*time.Second)
	set(&s.HoldTTL, 15*time.Second)
	set(&s.CollectWithin, 5*time.Minute)
	set(&s.ReconcileEvery, 2*time.Second)
	set(&s.MaxStale, 30*time.Second)
	s.Refunds = s.Refunds.withDefaults()
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Observe == nil {
		s.Observe = func(Observation) {}
	}
	if s.Timed == nil {
		s.Timed = func(Stage, time.Duration) {}
	}
	return s
}

// Observation is one fact for metrics. None of its fields identifies a payer, a path or a key.
type Observation struct {
	// Event is "settlement", "delivery", "reorg", "quarantine", "loss" (served, and not paid), "credit", "issue", "challenge" (what was
	// asked for under a request id), "refund" or "refund_balance", which is the refund wallet's; "received" (the ledger says since now that
	// the money has come), "undelivered" (it says so of the goods), or "round" of the reconciler.
	Event   string
	Network string
	// Asset is the symbol of what Amount is of, as the configuration has it; "other" for one that it does not have.
	Asset string
	// Outcome is settled, failed or unknown; delivered, undelivered, void (not charged) or unpaid (the upstream has answered, and the
	// payment failed: nothing was delivered); imported; issued, failed or unknown; made, claimed or cancelled; refunded, failed or waiting;
	// sale or facilitated, of what was received; done or failed, of a round.
	Outcome string
	// Reason is a stable code. A facilitator may have made it up: see KnownReason.
	Reason string
	// Took is how long a settlement took.
	Took time.Duration
	// Amount is what was received, what was lost, or what is to go back, in atomic units.
	Amount uint256.Int
}

// Engine runs the payments of one ledger in one process.
type Engine struct {
	store ledger.Store

	revoked *token.Revoked
	looked  chan struct{} // closed when revocations were looked for once, whatever came of it

	limits    limits
	bodies    room // for the bodies of requests with keys
	answers   room // for answers that are held back
	losses    losses
	refunds   refunder
	leases    *leaser                             // of what is used up
	exhausted expiring.Map[common.Hash, struct{}] // windows of free tiers
	over      expiring.Map[common.Hash, standing] // zones of which nothing is left

	mu       sync.Mutex
	settings Settings
	flights  map[string]*flight         // by payment id
	holders  map[string]context.Context // by payment id: the client of the request that holds it
	turns    map[common.Hash]*turn      // by what is reserved
	owed     map[string]struct{}        // by payment id: what this process is collecting
	leftover int                        // of these, what the reconciler found
	lending  map[money]uint256.Int      // what this process is about to serve before it is paid

	background sync.WaitGroup // settlements whose client may have left
	loops      sync.WaitGroup // what runs beside the reconciler
	stop       context.CancelFunc
	reconciled chan struct{} // closed when the reconciler has ended
	wake       chan struct{}
}

// NewEngine starts an engine, with its reconciler, on a ledger that the caller closes after Close.
func NewEngine(store ledger.Store, s Settings) *Engine {
	e := idleEngine(store, s)
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	go e.reconcileLoop(ctx)
	e.loops.Go(func() { e.upkeepLoop(ctx) })
	e.loops.Go(func() { e.surveyLoop(ctx) })
	e.loops.Go(func() { e.refundLoop(ctx) })
	e.loops.Go(func() { e.revocationLoop(ctx) })
	e.loops.Go(func() { e.leases.run(ctx) })
	return e
}

// idleEngine is an engine that does nothing by itself.
func idleEngine(store ledger.Store, s Settings) *Engine {
	e := &Engine{
		store: store, settings: s.withDefaults(), flights: make(map[string]*flight),
		holders: make(map[string]context.Context), turns: make(map[common.Hash]*turn), owed: make(map[string]struct{}),
		lending: make(map[money]uint256.Int),
		limits:  limits{clients: make(map[string]*spent)}, bodies: room{most: heldBodies}, answers: room{most: heldAnswers},
		refunds:    refunder{under: make(map[string]struct{}), said: make(map[string]time.Time)},
		reconciled: make(chan struct{}), wake: make(chan struct{}, 1),
		revoked: s.Revoked, looked: make(chan struct{}), exhausted: expiring.Map[common.Hash, struct{}]{Most: mostExhausted},
		over: expiring.Map[common.Hash, standing]{Most: mostExhausted},
	}
	if e.revoked == nil {
		e.revoked = token.NewRevoked()
	}
	e.leases = newLeaser(store, func() *slog.Logger { return e.current().Logger })
	return e
}

// Configure takes new settings; what is under way goes on with the old ones.
func (e *Engine) Configure(s Settings) {
	e.mu.Lock()
	e.settings = s.withDefaults()
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Close ends the reconciler and what runs beside it, and waits for every settlement under way; their contexts bound the wait. What
// was drawn of allowances and not used goes back.
func (e *Engine) Close() error {
	e.stop()
	<-e.reconciled
	e.loops.Wait()
	e.background.Wait()
	e.leases.close()
	return nil
}

// Store is the engine's ledger.
func (e *Engine) Store() ledger.Store { return e.store }

func (e *Engine) current() Settings {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settings
}

func (e *Engine) payee(p *ledger.Payment) *Payee {
	for _, y := range e.current().Payees {
		if y.Network.ChainID == p.ChainID && y.Network.Asset.Address == p.Asset {
			return y
		}
	}
	return nil
}

// intent is the payment as the payee's settler sees it, without the signature, which the ledger does not keep.
func intent(p *ledger.Payment, y *Payee) settlement.Intent {
	in := settlement.Intent{Payment: p.ID, Network: y.Network, ClaimBlock: p.ClaimBlock, Finality: y.Finality.Of(&p.Amount)}
	in.Authorization = x402.Authorization{From: p.Payer, To: p.PayTo, Value: p.Amount, Nonce: p.Nonce}
	in.Authorization.ValidBefore.SetUint64(p.ValidBefore)
	if p.PaysBack() {
		in.Authorization.ValidBefore.SetUint64(signedUntil(p))
		in.Again, in.Finality = true, settlement.Finality{} // nobody waits for it; what it pays back is refunded when it is safe
	}
	return in
}

// errGivenUp: a compare-and-set lost too often in a row; somebody else is at work on the payment.
var errGivenUp = errors.New("paywall: the payment keeps changing")

// update makes changes on a payment, reading it again whenever somebody was faster. changes decides
// from the payment as it is; none means that nothing is to be done.
func (e *Engine) update(ctx context.Context, p ledger.Payment, changes func(ledger.Payment) []ledger.Change) (ledger.Payment, error) {
	for range 20 {
		cs := changes(p)
		if len(cs) == 0 {
			return p, nil
		}
		next, err := e.store.Update(ctx, p.ID, p.Version, cs...)
		if !errors.Is(err, ledger.ErrConflict) {
			if err != nil {
				e.missed(p.ID, err)
				return p, err
			}
			e.happened(&next, cs)
			return next, nil
		}
		if p, err = e.store.Payment(ctx, p.ID); err != nil {
			return p, err
		}
	}
	return p, fmt.Errorf("%w: %s", errGivenUp, p.ID)
}

// Update changes a payment as its ledger's Update does, for what an operator does, and tells of what has happened.
func (e *Engine) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	p, err := e.store.Update(ctx, id, version, changes...)
	if err == nil {
		e.happened(&p, changes)
	}
	return p, err
}

// sameAuthorization guards against a store that answers for another payment.
func sameAuthorization(p *ledger.Payment, id x402.AuthorizationID) bool {
	return p.AuthorizationID == id && p.Nonce != (common.Hash{})
}
