// Package facilitator settles payments through x402 facilitators over HTTP: others make the transactions and pay their gas.
//
// A facilitator is handed a signed authorization and believed nothing. What it says only tells where to look: a payment
// is settled when the chain shows it (settlement/proof), and failed when the chain says that it can't be executed. As long as
// neither is so, the outcome is unknown, whatever the facilitator answers: it holds a signature that is good until its end,
// and a payer who is told "not paid" signs another one. Settings.Trust gives that up for facilitators that the operator
// answers for.
package facilitator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Facilitator is one facilitator as it is configured.
type Facilitator struct {
	// URL is the address before /verify, /settle and /supported: http or https, without query and fragment.
	URL string
	// Header goes with each request to it. Values may be secrets.
	Header http.Header
	// Authorizer signs each request to it; may be nil.
	Authorizer Authorizer
	// Timeout bounds one request for a payment; 30 s if 0.
	Timeout time.Duration
	// Verify asks /verify before /settle, for those that demand it; /settle verifies, too.
	Verify bool
}

// Authorizer adds to a request what shows who sends it. It is asked for each request anew, since tokens may be for one
// method and address.
type Authorizer interface {
	Authorize(r *http.Request) error
}

// Settings may change while payments are under way.
type Settings struct {
	// Facilitators in the order in which they are asked; at least one.
	Facilitators []Facilitator
	// Trust takes a facilitator at its word: a success is not looked up on the chain before it counts, and a refusal that the
	// chain does not explain is a failure.
	Trust bool
}

// Config is what a Settler is made of.
type Config struct {
	Network x402.Network
	// Chain is how the network is reached. It stays its maker's, who closes it after the Settler.
	Chain *chain.Client
	// Journal is where it is noted who was handed a payment, before it is.
	Journal settlement.Journal
	Settings
	Logger *slog.Logger
	// Now is the clock for what is kept or put off for some time; time.Now if nil.
	Now func() time.Time
	// Poll is how soon the chain is looked at again while a payment is under way; 250 ms if 0. It is asked less and less
	// often, every eighth of that at last.
	Poll time.Duration
	// Patience is how long a facilitator may take for its answer until the chain is looked at besides; 3 s if 0. As long does
	// a refused payment wait that the chain has no objection to.
	Patience time.Duration
}

// Settler settles the payments of one network.
type Settler struct {
	network x402.Network
	chain   *chain.Client
	journal settlement.Journal
	log     *slog.Logger
	now     func() time.Time
	poll    time.Duration
	patient time.Duration
	http    *http.Client

	checks checks
	desks  desks
	turns  turns
	under  memory // payments that trusted facilitators may be asked about again
	// reviews looks again at many settled payments at once.
	reviews proof.Reviews

	mu      sync.RWMutex
	remotes []*remote
	trust   bool
	closed  bool
	stop    context.CancelFunc // of the refresher; nil until Start
	wake    chan struct{}
	wg      sync.WaitGroup
}

var _ settlement.Settler = (*Settler)(nil)

// New makes a settler. It asks nobody anything before Start.
func New(cfg Config) (*Settler, error) {
	switch {
	case cfg.Chain == nil || cfg.Journal == nil:
		return nil, errors.New("facilitator: no chain or no journal")
	case cfg.Network.ChainID == 0:
		return nil, errors.New("facilitator: no network")
	}
	s := &Settler{
		network: cfg.Network, chain: cfg.Chain, journal: cfg.Journal, log: cfg.Logger, now: cfg.Now,
		poll: cfg.Poll, patient: cfg.Patience, http: newHTTPClient(), wake: make(chan struct{}, 1),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.reviews.Now = s.now
	if s.poll <= 0 {
		s.poll = 250 * time.Millisecond
	}
	if s.patient <= 0 {
		s.patient = 3 * time.Second
	}
	if err := s.Reconfigure(cfg.Settings); err != nil {
		return nil, err
	}
	return s, nil
}

// Validate answers nil if a Settler can be made with the settings.
func Validate(n Settings) error {
	_, err := remotesOf(n, x402.Network{}, nil)
	return err
}

func remotesOf(n Settings, network x402.Network, client *http.Client) ([]*remote, error) {
	if len(n.Facilitators) == 0 {
		return nil, errors.New("facilitator: none is configured")
	}
	list := make([]*remote, 0, len(n.Facilitators))
	for _, f := range n.Facilitators {
		r, err := newRemote(f, network, client)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(o *remote) bool { return o.base == r.base }) {
			return nil, fmt.Errorf("facilitator: %s is there twice", r.host)
		}
		list = append(list, r)
	}
	return list, nil
}

// Reconfigure puts new settings in force for what begins from now on. What is known of a facilitator that stays is kept. An
// error leaves all as it was.
func (s *Settler) Reconfigure(n Settings) error {
	next, err := remotesOf(n, s.network, s.http)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range next {
		at := slices.IndexFunc(s.remotes, func(old *remote) bool { return old.base == r.base })
		if at >= 0 {
			next[i] = s.remotes[at]
			next[i].configure(n.Facilitators[i])
		}
	}
	s.remotes, s.trust = next, n.Trust
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

func (s *Settler) set() (remotes []*remote, trust bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.remotes, s.trust
}

// Start begins to ask the facilitators, now and then, what they support. It does nothing the second time.
func (s *Settler) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.wg.Go(func() { s.refresh(ctx) })
}

// Close waits for what is under way; callers' contexts bound that. What is called later gives settlement.ErrUnavailable.
func (s *Settler) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.stop != nil {
		s.stop()
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.http.CloseIdleConnections()
	return nil
}

var errClosed = fmt.Errorf("%w: the settler is closed", settlement.ErrUnavailable)

// enter notes that a call began; done must follow unless it fails.
func (s *Settler) enter(in *settlement.Intent) (done func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errClosed
	}
	if in != nil && (in.Network.ChainID != s.network.ChainID || in.Network.Asset.Address != s.network.Asset.Address) {
		return nil, fmt.Errorf("facilitator: a payment on %s in %s came to the settler of %s in %s",
			in.Network.ID, in.Network.Asset.Address, s.network.ID, s.network.Asset.Address)
	}
	s.wg.Add(1)
	return s.wg.Done, nil
}

// Ready answers nil when payments can be settled now: the chain answers and is the configured one, and one of the
// facilitators supports it and does not fail all the time.
func (s *Settler) Ready(ctx context.Context) error {
	done, err := s.enter(nil)
	if err != nil {
		return err
	}
	defer done()
	id, err := s.chain.ChainID(ctx)
	if err != nil {
		return err
	}
	if id != s.network.ChainID {
		return &chain.MismatchError{What: "chain id", Configured: fmt.Sprint(s.network.ChainID), Chain: fmt.Sprint(id)}
	}
	return s.reachable(ctx)
}

// reachable answers nil if there is a facilitator that a payment could be handed to. The first time it waits until they
// were asked.
func (s *Settler) reachable(ctx context.Context) error {
	remotes, _ := s.set()
	var problems []error
	for _, r := range remotes {
		err := r.usable(ctx, s.now)
		if err == nil {
			return nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", r.host, err))
	}
	return unavailable(errors.Join(problems...))
}

// unavailable wraps err as "ask again later".
func unavailable(err error) error {
	if errors.Is(err, settlement.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", settlement.ErrUnavailable, err)
}
