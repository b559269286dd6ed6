package webhooks

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	// perEndpoint and inAll bound how many attempts a process has under way: one endpoint that is slow leaves room for the others.
	perEndpoint = 8
	inAll       = 64
	// ofTests and ofAiling are how many of them may be for endpoints of tests, and for such whose last attempt has failed: whoever has a key for tests, or
	// leaves receivers that hang, must not keep from the others what they are to be told.
	ofTests  = 48
	ofAiling = 32
	// duePage is how many deliveries are looked at in one step.
	duePage = 128
	// leaseSlack is how much longer than an attempt an instance has its delivery for itself. What a killed one was at comes again then.
	leaseSlack = 5 * time.Second
	// recordTimeout bounds the writing down of how an attempt ended.
	recordTimeout = 4 * time.Second
	// strangers are how long endpoints of another instance's configuration are left to it.
	strangers = time.Minute
)

// What waits for a place at an endpoint, in front of which others may be, is due again after a pause, each a little later than the one before it:
// a backlog then comes up about as fast as it goes down, and does not stand before what is for other endpoints.
const (
	pauseWell   = time.Second
	pauseAiling = time.Minute
	spaceWell   = 2 * time.Millisecond
	spaceAiling = 250 * time.Millisecond
	mostSpace   = 10 * time.Minute
)

// sendAll attempts what is due.
func (s *Service) sendAll(ctx context.Context) {
	putOff := make(map[string]int)
	for ctx.Err() == nil {
		more, err := s.dispatch(ctx, putOff)
		s.complain(ctx, "looking for what is due", err)
		if !more || err != nil {
			return
		}
	}
}

// dispatch begins to attempt what is due, as far as there is room, and counts by endpoint in putOff what it can't begin. It tells whether there may be more
// that can be begun now.
func (s *Service) dispatch(ctx context.Context, putOff map[string]int) (bool, error) {
	now := s.now().UTC()
	page, err := s.store.DueObjects(ctx, kindDelivery, now, duePage)
	if err != nil {
		return false, err
	}
	var lag time.Duration
	if len(page) > 0 {
		lag = now.Sub(page[0].Due)
	}
	s.current().Observe(Observation{Event: "lag", Took: lag})
	moved := false
	st := &step{now: now, endpoints: make(map[string]*storedEndpoint), putOff: putOff, crowded: len(page) == duePage}
	for _, o := range page {
		if !s.room() {
			return false, nil // who ends an attempt wakes us
		}
		did, err := s.begin(ctx, o, st)
		if err != nil && !errors.Is(err, ledger.ErrConflict) { // then another instance has it
			return false, err
		}
		moved = moved || did
	}
	return moved && st.crowded, nil
}

// step is one look at what is due.
type step struct {
	now       time.Time
	endpoints map[string]*storedEndpoint // that were read already; nil: it is gone
	putOff    map[string]int             // how many were put off, by endpoint
	crowded   bool                       // there may be more behind what is looked at
}

// begin begins the attempt of one delivery, if it is this instance's to make and there is room. It tells whether the delivery is due now no more.
func (s *Service) begin(ctx context.Context, o ledger.Object, st *step) (bool, error) {
	now := st.now
	r, err := decode[storedDelivery](o)
	if err != nil {
		s.complain(ctx, "reading a delivery", err)
		o.Due = now.Add(goneAfter) // it must not stand in the way of others
		_, err := s.store.PutObject(ctx, o)
		return true, err
	}
	e, known := st.endpoints[r.value.EndpointID]
	if !known {
		if e, err = s.reach(ctx, r.value.EndpointID); err != nil {
			return false, err
		}
		st.endpoints[r.value.EndpointID] = e
	}
	switch {
	case e == nil:
		s.felt(r.value.EndpointID, true) // nothing is to be remembered of it
		return true, s.bury(ctx, &r, ReasonEndpointRemoved, now)
	case !e.Active:
		return true, s.bury(ctx, &r, ReasonEndpointOff, now)
	}
	secrets, err := s.secretsOf(e, now)
	if err != nil {
		s.complain(ctx, "reading the secret of endpoint "+e.ID, err)
		return true, s.await(ctx, &r, now)
	}
	if len(secrets) == 0 { // it is in the configuration of other instances
		if now.Sub(o.Due) < strangers {
			return false, nil
		}
		return true, s.postpone(ctx, &r, now.Add(strangers))
	}
	at, ok := s.enter(e)
	if !ok && !st.crowded {
		return false, nil // who leaves wakes us
	}
	if !ok { // what waits here must not stand in the way of the others
		st.putOff[e.ID]++
		return true, s.postpone(ctx, &r, now.Add(at.pause(st.putOff[e.ID])))
	}
	lease := s.now().UTC().Add(s.current().Timeout + leaseSlack) // those before it may have taken long
	r.value.Leased, r.object.Due = lease, lease
	if err := r.save(ctx, s.store); err != nil {
		s.leave(at)
		return false, err
	}
	faultpoint.Reached("webhook leased")
	s.attempts.Go(func() { s.attempt(&r, e, secrets, at) })
	return true, nil
}

// reach reads an endpoint; nil: it is gone.
func (s *Service) reach(ctx context.Context, id string) (*storedEndpoint, error) {
	r, err := load[storedEndpoint](ctx, s.store, kindEndpoint, id)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil
	}
	return &r.value, err
}

// secretsOf are what signs for e; none: they are in another instance's configuration.
func (s *Service) secretsOf(e *storedEndpoint, now time.Time) ([]string, error) {
	set := s.current()
	if !e.Configured {
		return e.secrets(set.Keys, now)
	}
	if c := set.find(e.ID); c != nil {
		return c.Secrets, nil
	}
	return nil, nil
}

// room reports whether one more attempt may be under way.
func (s *Service) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total < inAll
}

// place is one of those that attempts take.
type place struct {
	endpoint     string
	test, ailing bool
}

// pause is for how long there will hardly be such a place for the nth that waits for one.
func (p place) pause(n int) time.Duration {
	d, space := pauseWell, spaceWell
	if p.ailing {
		d, space = pauseAiling, spaceAiling
	}
	return d + rand.N(d) + min(time.Duration(n)*space, mostSpace) //nolint:gosec // it only spreads the load
}

// enter takes a place for an attempt at an endpoint; false: there is none.
func (s *Service) enter(e *storedEndpoint) (place, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{e.ID, !e.Live, s.ailing[e.ID]}
	if s.busy[p.endpoint] >= perEndpoint || p.test && s.tests >= ofTests || p.ailing && s.sick >= ofAiling {
		return p, false
	}
	s.count(p, 1)
	return p, true
}

// leave gives the place back.
func (s *Service) leave(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(p, -1)
}

func (s *Service) count(p place, n int) {
	if s.busy[p.endpoint] += n; s.busy[p.endpoint] == 0 {
		delete(s.busy, p.endpoint)
	}
	s.total += n
	if p.test {
		s.tests += n
	}
	if p.ailing {
		s.sick += n
	}
}

// felt remembers whether an endpoint is well.
func (s *Service) felt(endpoint string, well bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.ailing, endpoint); !well {
		s.ailing[endpoint] = true
	}
}

// postpone makes a delivery due later, without an attempt.
func (s *Service) postpone(ctx context.Context, r *record[storedDelivery], until time.Time) error {
	r.object.Due, r.value.Leased = until, time.Time{}
	return r.save(ctx, s.store)
}

// await puts off a delivery that can't be signed until somebody has brought the key back: the longer it has waited, the longer, since all that has happened
// meanwhile waits, too. It is dead when it has waited for as long as the log has what is over.
func (s *Service) await(ctx context.Context, r *record[storedDelivery], now time.Time) error {
	waited := now.Sub(r.value.NextAttemptAt)
	if waited >= s.current().Keep {
		return s.bury(ctx, r, ReasonRequest, now)
	}
	return s.postpone(ctx, r, now.Add(max(strangers, waited/10)))
}

// bury ends a delivery that can't be made.
func (s *Service) bury(ctx context.Context, r *record[storedDelivery], reason string, now time.Time) error {
	r.value.end(StatusDead, reason)
	r.value.Leased = time.Time{}
	set := s.current()
	r.object.Due, r.object.Expires = time.Time{}, now.Add(set.Keep)
	if err := r.save(ctx, s.store); err != nil {
		return err
	}
	set.Observe(Observation{Event: "delivery", Outcome: string(StatusDead)})
	return nil
}

// attempt makes one attempt, and writes down how it ended.
func (s *Service) attempt(r *record[storedDelivery], e *storedEndpoint, secrets []string, at place) {
	o := s.send(s.attempting, e, secrets, &r.value.Delivery)
	faultpoint.Reached("webhook sent")
	gaveUp := s.attempting.Err() != nil && o.status == 0
	defer func() {
		s.leave(at)
		wake(s.sendWake) // somebody may wait for the place
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.attempting), recordTimeout)
	defer cancel()
	set, now := s.current(), s.now().UTC()
	if gaveUp { // it may have arrived or not; whoever comes next sends it again
		s.complain(ctx, "giving a delivery back", s.postpone(ctx, r, now))
		return
	}
	s.felt(e.ID, o.reason == "")
	if o.reason == ReasonGone {
		moved, err := s.disable(ctx, e, now)
		if err != nil {
			s.complain(ctx, "disabling an endpoint", err)
			return // the lease runs out, and it is asked again
		}
		if moved { // who is gone is not who is to be told now
			o.reason = ReasonStatus
		}
	}
	r.value.attempted(o, now)
	if r.object.Due = r.value.NextAttemptAt; r.value.over() {
		r.object.Expires = now.Add(set.Keep)
	}
	err := r.save(ctx, s.store)
	for range 3 {
		if err == nil || errors.Is(err, ledger.ErrConflict) || ctx.Err() != nil {
			break
		}
		err = r.save(ctx, s.store)
	}
	s.complain(ctx, "writing down how an attempt ended", err)
	s.tell(set, r, &o)
}

// tell tells metrics and the log how an attempt ended.
func (s *Service) tell(set Settings, r *record[storedDelivery], o *outcome) {
	seen := Observation{Event: "attempt", Outcome: string(StatusDelivered), Took: o.took}
	if o.reason != "" {
		seen.Outcome = o.reason
	}
	set.Observe(seen)
	d := &r.value
	if d.over() {
		set.Observe(Observation{Event: "delivery", Outcome: string(d.Status)})
	}
	args := []any{
		slog.String("delivery", d.ID), slog.String("endpoint", d.EndpointID), slog.String("event", d.EventID), slog.String("type", d.EventType),
		slog.Int("attempt", d.AttemptCount), slog.Int("status", o.status), slog.Duration("took", o.took),
	}
	switch {
	case d.Status == StatusDead:
		set.Logger.Error("a webhook could not be delivered; it is not tried again", append(args, slog.String("reason", o.reason))...)
	case o.reason != "":
		set.Logger.Warn("a webhook was not taken; it is tried again", append(args, slog.String("reason", o.reason), slog.Time("next", d.NextAttemptAt))...)
	default:
		set.Logger.Debug("a webhook was delivered", args...)
	}
}

// disable makes an endpoint inactive that has answered 410, unless it has moved elsewhere meanwhile. The others hear of it first: whatever dies in
// between asks it again.
func (s *Service) disable(ctx context.Context, e *storedEndpoint, now time.Time) (moved bool, err error) {
	s.disabling.Lock() // one of all that have been answered so
	defer s.disabling.Unlock()
	endpoints, err := s.all(ctx)
	if err != nil {
		return false, err
	}
	did := false
	_, err = change(ctx, s.store, kindEndpoint, e.ID, func(r *record[storedEndpoint]) (bool, error) {
		if moved = r.value.URL != e.URL; moved || !r.value.Active {
			return false, nil
		}
		ev, err := disabledEvent(&r.value, r.object.Version, now)
		if err != nil {
			return false, err
		}
		if err := s.publish(ctx, endpoints, &ev, e.ID); err != nil {
			return false, err
		}
		r.value.Active, r.value.DisabledReason, r.value.UpdatedAt = false, DisabledGone, now
		did = true
		return true, nil
	})
	if err = without(err, ledger.ErrNotFound); err == nil && did {
		set := s.current()
		set.Observe(Observation{Event: "disabled"})
		set.Logger.Error("a webhook endpoint has answered 410 Gone, and is told nothing more", slog.String("endpoint", e.ID))
	}
	return moved, err
}
