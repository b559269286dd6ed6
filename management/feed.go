package management

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/events"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// Codes of the feed.
const (
	CodeNoFeed  = "events.unavailable"
	CodeTooMany = "events.too_many_listeners"
	// A listener is sent away after a time, and comes back: whoever listens keeps the ledger open. The machine's own endpoint outlives
	// configurations, so nobody tells its listeners that theirs has ended.
	listenTime      = 15 * time.Minute
	listenTimeLocal = time.Minute
	// mostAway is how far a listener that comes back may have been away to hear of what happened meanwhile.
	mostAway = 10 * time.Minute
)

func (a *API) addFeed() {
	add(a, operation{
		rule: rule{id: "listenEvents", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/events", tag: tagPayments,
		summary: "Tells what happens to payments while it happens, as server-sent events",
		description: "Each event has the body of the webhook of its type as `data`, and comes at least once: after a break of up to ten minutes, who sends " +
			"`Last-Event-ID` hears what it has missed, and a little of what it knows, by the same `id` in `data`. The answer ends after a quarter of an hour, or when the key " +
			"ends: call again. It is for pages and people; programs that must miss nothing take webhooks.",
	}, a.listen)
}

type feedInput struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"32" doc:"The id of the last event that was heard"`
}

type feedOutput struct {
	ContentType string `header:"Content-Type"`
	Buffering   string `header:"X-Accel-Buffering"`
	Body        func(huma.Context)
}

// Leave ends all feeds, so that a server that is stopping need not wait for them. The API answers on.
func (a *API) Leave() { a.leave() }

// listen tells a listener what happens for as long as it may listen.
func (a *API) listen(_ context.Context, x *exchange, in *feedInput) (*feedOutput, error) {
	if x.shop.Events == nil {
		return nil, told(http.StatusNotFound, CodeNoFeed, "there is no feed of events here", nil)
	}
	rise, ok := a.listeners.sit(x.caller)
	if !ok {
		e := told(http.StatusServiceUnavailable, CodeTooMany, "too many listen already; try again, or take webhooks", nil)
		e.RetryAfter = 10
		return nil, e
	}
	out := &feedOutput{ContentType: events.ContentType, Buffering: "no"}
	out.Body = func(huma.Context) {
		defer rise()
		a.tellNews(x, in.LastEventID)
	}
	return out, nil
}

func (a *API) tellNews(x *exchange, lastEventID string) {
	lasts := listenTime
	if a.local {
		lasts = listenTimeLocal
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), lasts)
	defer cancel()
	stop := context.AfterFunc(a.leaving, cancel)
	defer stop()
	w := x.stream()
	if x.r.Method == http.MethodHead {
		return
	}
	s := events.Stream{
		Source: x.shop.Events,
		Want:   func(ev *webhooks.Event) bool { return x.network == "" || ev.Live == (x.network == Mainnet) },
		Write:  w.sendNow,
		Check: func(ctx context.Context) error {
			_, err := a.recognize(ctx, x)
			return err
		},
	}
	err := s.Run(ctx, events.Since(lastEventID, x.shop.Store.Now(), mostAway))
	if err != nil && x.r.Context().Err() == nil {
		if e := asError(err); e.Status < http.StatusInternalServerError { // the key has ended
			_ = w.sendNow("event: end\ndata: {\"code\":\"" + e.Code + "\"}\n\n")
			return
		}
		a.log.WarnContext(ctx, "a feed of events was cut off", slog.String("request", x.id), slog.Any("error", err))
	}
}

// sendNow writes text that must not wait for more.
func (s *stream) sendNow(text string) error {
	if _, err := s.Write([]byte(text)); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
