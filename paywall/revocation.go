package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/caddy-x402/caddy-x402/token"
)

const (
	// listenEvery is how often the ledger is asked for new revocations: every instance hears of one within a second.
	listenEvery = 400 * time.Millisecond
	// listenTimeout bounds one such question.
	listenTimeout = 5 * time.Second
	// listenAnew is how often all revocations are read again: whatever happened to the ledger, a failover that lost its last
	// moments or a restored copy, none is missed for longer.
	listenAnew = time.Minute
	listenPage = 500
	// firstListen is how long a request waits for an engine that was just opened to hear of revocations for the first time.
	firstListen = 2 * time.Second
)

// Revoke takes back the token with this id, a payment's, until it ends by itself. When it has returned nil, this instance takes the token
// no more, others follow within a second, and those that don't reach the ledger after MaxStale at the latest.
func (e *Engine) Revoke(ctx context.Context, id string, until time.Time) error {
	if err := e.store.Revoke(ctx, id, until); err != nil {
		return fmt.Errorf("revoking the token of %s: %w", id, err)
	}
	e.revoked.Add(id, until, e.current().Now())
	e.current().Logger.Info("a token was revoked", slog.String("payment", id), slog.Time("until", until))
	return nil
}

// revocationLoop follows the revocations of all instances until ctx ends.
func (e *Engine) revocationLoop(ctx context.Context) {
	var l listener
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	for {
		l.listen(ctx, e)
		if l.first.IsZero() {
			l.first = time.Now()
			close(e.looked)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// listener is how far an engine has heard.
type listener struct {
	after uint64    // the number of the last revocation that was heard of
	anew  time.Time // when all of them were read
	first time.Time // when it has begun
	deaf  bool      // the last look failed
}

// listen asks once for what is new.
func (l *listener) listen(ctx context.Context, e *Engine) {
	s := e.current()
	began := s.Now() // what is revoked from here on may be missed
	if time.Since(l.anew) > listenAnew {
		l.after, l.anew = 0, time.Now()
	}
	err := l.hear(ctx, e, began)
	switch {
	case err == nil && l.deaf:
		s.Logger.Info("revocations of tokens are heard of again")
	case err != nil && ctx.Err() != nil:
		return
	case err != nil && !l.deaf:
		s.Logger.Error("revocations of tokens can't be heard of; tokens of plans are refused from max_stale on",
			slog.Duration("max_stale", s.MaxStale), slog.Any("error", err))
	}
	if l.deaf = err != nil; l.deaf {
		l.anew = time.Time{} // the ledger that answers next may know less than the one that answered before
		return
	}
	e.revoked.Heard(began)
}

func (l *listener) hear(ctx context.Context, e *Engine, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	for {
		page, err := e.store.Revoked(ctx, l.after, listenPage)
		if err != nil {
			return err
		}
		for _, r := range page {
			e.revoked.Add(r.ID, r.Until, now)
			l.after = r.Number
		}
		if len(page) < listenPage {
			return nil
		}
	}
}

// hears waits until an engine that was just opened has looked for revocations, and reports whether they were heard of lately.
func (e *Engine) hears(ctx context.Context, now func() time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, firstListen)
	defer cancel()
	select {
	case <-e.looked:
	case <-ctx.Done():
	}
	return heardLately(e.revoked, e.current().MaxStale, now())
}

// admit verifies an access token. Without an error, heard says whether it is known that it was not revoked: that is asked first, since what is
// heard after the token was looked at says nothing about it.
func (a *attempt) admit(bearer string) (c *token.Claims, plan *Plan, heard bool, err error) {
	now := a.Now()
	heard = a.tokens.heard(now)
	c, plan, err = a.tokens.verify(bearer, a.Request, now)
	if err != nil || heard || !a.listens() {
		return c, plan, heard, err
	}
	c, plan, err = a.tokens.verify(bearer, a.Request, now)
	return c, plan, true, err
}

// listens opens the ledger if nobody has, and reports whether revocations are heard of then.
func (a *attempt) listens() bool {
	engine, release, err := a.Acquire()
	if err != nil {
		return false
	}
	defer release()
	return engine.hears(a.r.Context(), a.Now) && a.tokens.heard(a.Now())
}

// hearsOf reports whether the plan of a payment was revoked; an error says that nobody knows.
func (a *attempt) hearsOf(payment string) (revoked bool, err error) {
	if a.engine.revoked.Has(payment) {
		return true, nil
	}
	if !a.engine.hears(a.r.Context(), a.Now) {
		return false, stale()
	}
	return a.engine.revoked.Has(payment), nil
}

// codeStale: nobody knows whether a token was revoked.
const codeStale = "revocations_unknown"

var errDeaf = errors.New("paywall: revocations were not heard of for too long")

// stale is the answer to whoever has a token while revocations can't be heard of.
func stale() *refusal {
	r := unavailable(codeStale, errDeaf)
	r.detail = "whether this access is still good can't be found out now; nothing was charged, send the same request again"
	return r
}
