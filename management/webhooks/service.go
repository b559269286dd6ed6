package webhooks

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Settings are what may change while a Service runs; they come from the newest live configuration.
type Settings struct {
	// Endpoints are those of the configuration. Instances that share a ledger should have the same.
	Endpoints []Configured
	// Keys seal the secrets of all others; nil: there can be no others.
	Keys *Keys
	// AllowPrivate are addresses that endpoints may be at though they are not public; see PrivateRanges.
	AllowPrivate []netip.Prefix
	// Timeout is how long an attempt may take. Default: 15 s.
	Timeout time.Duration
	// Keep is how long the log has deliveries that are over. Default: 30 days.
	Keep time.Duration
	// Observe hears of what happens, for metrics; may be nil.
	Observe func(Observation)
	Logger  *slog.Logger
}

// Check refuses what is known not to work before anything is asked.
func (s *Settings) Check() error {
	seen := make(map[string]bool)
	for i := range s.Endpoints {
		c := &s.Endpoints[i]
		if err := c.Check(); err != nil {
			return err
		}
		if seen[c.ID()] {
			return fail(ErrInvalid, CodeURLInvalid, "the same URL is there twice; put everything that it is to be told of into one block")
		}
		seen[c.ID()] = true
		u, err := url.Parse(c.URL)
		if err != nil {
			return fail(ErrInvalid, CodeURLInvalid, "the webhook's URL can't be read")
		}
		to, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() == "localhost" {
			to, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
		}
		if err == nil && permitted(to, s.AllowPrivate) != nil {
			return fail(ErrInvalid, CodeURLInvalid, "the webhook's URL leads to an address that is not a public one; allow it by webhooks { allow_private }")
		}
	}
	return nil
}

func (s Settings) withDefaults() Settings {
	if s.Timeout <= 0 {
		s.Timeout = 15 * time.Second
	}
	if s.Keep <= 0 {
		s.Keep = 30 * 24 * time.Hour
	}
	if s.Observe == nil {
		s.Observe = func(Observation) {}
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	return s
}

// Observation is one fact for metrics; nothing in it tells an endpoint.
type Observation struct {
	// Event is "attempt", "delivery" (one that is over), "disabled" (an endpoint, by its 410) or "lag".
	Event string
	// Outcome is delivered, dead, or the reason why an attempt has failed.
	Outcome string
	// Took is how long an attempt took, or for how long the delivery that is due longest has been due.
	Took time.Duration
}

// Options of a Service.
type Options struct {
	Store  Store
	Outbox Outbox
	// Now is the clock. Default: the store's.
	Now func() time.Time
	// Poll is how often is looked for what nobody has told of: other instances' events, and what is due. Default: 1 s.
	Poll time.Duration
}

// Service keeps the endpoints of one ledger, and delivers to them in one process.
type Service struct {
	store  Store
	outbox Outbox
	now    func() time.Time
	poll   time.Duration

	syncing   sync.Mutex // held while the endpoints of the configuration are written down
	disabling sync.Mutex // held while an endpoint is made inactive

	mu       sync.Mutex
	settings Settings
	client   *http.Client
	fresh    bool           // the settings are new: their endpoints were not written down yet
	synced   time.Time      // when they were
	busy     map[string]int // attempts under way, by endpoint
	total    int            // all of them, and those of them at endpoints of tests, and at ailing ones
	tests    int
	sick     int
	ailing   map[string]bool      // endpoints whose last attempt has failed
	said     map[string]time.Time // when what was last complained of

	relayWake, sendWake chan struct{}
	stop, abort         context.CancelFunc
	attempting          context.Context // of attempts: they may go on a little when everything else has ended
	loops, attempts     sync.WaitGroup
}

// New starts a Service; Close ends it.
func New(o Options, set Settings) *Service {
	s := idle(o, set)
	s.run()
	return s
}

// run makes it do by itself what there is to do.
func (s *Service) run() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.loops.Go(func() { s.loop(ctx, s.relayWake, s.relayAll) })
	s.loops.Go(func() { s.loop(ctx, s.sendWake, s.sendAll) })
}

// idle is a Service that does nothing by itself.
func idle(o Options, set Settings) *Service {
	if o.Now == nil {
		o.Now = o.Store.Now
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	s := &Service{
		store: o.Store, outbox: o.Outbox, now: o.Now, poll: o.Poll,
		busy: make(map[string]int), ailing: make(map[string]bool), said: make(map[string]time.Time),
		relayWake: make(chan struct{}, 1), sendWake: make(chan struct{}, 1), stop: func() {},
	}
	s.attempting, s.abort = context.WithCancel(context.Background())
	s.Configure(set)
	return s
}

// Configure takes new settings; what is under way goes on with the old ones.
func (s *Service) Configure(set Settings) {
	set = set.withDefaults()
	s.mu.Lock()
	former := s.client
	if same := former != nil && slices.Equal(set.AllowPrivate, s.settings.AllowPrivate); !same {
		s.client = newClient(set.AllowPrivate)
	} else {
		former = nil
	}
	s.settings, s.fresh = set, true
	s.mu.Unlock()
	if former != nil {
		former.CloseIdleConnections()
	}
	s.Wake()
}

func (s *Service) current() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// Keeps is how long the log has deliveries that are over.
func (s *Service) Keeps() time.Duration { return s.current().Keep }

// Wake says that something may be there to be told, or due. It never waits.
func (s *Service) Wake() {
	wake(s.relayWake)
	wake(s.sendWake)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// closeGrace is how long attempts under way may take when the Service is closed. What is given up then is due at once, for whoever comes next.
const closeGrace = 3 * time.Second

// Close ends what runs, and waits for it.
func (s *Service) Close() error {
	s.stop()
	s.loops.Wait()
	timer := time.AfterFunc(closeGrace, s.abort)
	s.attempts.Wait()
	timer.Stop()
	s.abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.CloseIdleConnections()
	return nil
}

// loop runs work until ctx ends: when it is woken, and every poll.
func (s *Service) loop(ctx context.Context, woken <-chan struct{}, work func(context.Context)) {
	ticker := time.NewTicker(s.poll)
	defer ticker.Stop()
	for {
		work(ctx)
		select {
		case <-ctx.Done():
			return
		case <-woken:
		case <-ticker.C:
		}
	}
}

// complainEvery is how often the log has the same trouble.
const complainEvery = time.Minute

// complain logs what did not work and is tried again.
func (s *Service) complain(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	now := s.now()
	quiet := now.Sub(s.said[what]) < complainEvery
	if !quiet {
		s.said[what] = now
	}
	log := s.settings.Logger
	s.mu.Unlock()
	if !quiet {
		log.Error("webhooks: something did not work; it is tried again", slog.String("what", what), slog.Any("error", err))
	}
}
