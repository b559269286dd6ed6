package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
)

// relayPage is about how many events are relayed in one step.
const relayPage = 128

// relayAll relays what there is.
func (s *Service) relayAll(ctx context.Context) {
	if err := s.Sync(ctx); err != nil {
		s.complain(ctx, "configured endpoints", err)
		return // an event that is relayed before its endpoint is there would be lost
	}
	for ctx.Err() == nil {
		n, err := s.relay(ctx)
		s.complain(ctx, "reading what has happened", err)
		if n == 0 || err != nil {
			return
		}
		wake(s.sendWake)
	}
}

// relay makes the deliveries of the next events, and then moves the cursor. All instances do it: the ids of deliveries follow from
// events and endpoints, so none is made twice; and what dies in between is done again. It tells how many events there were.
func (s *Service) relay(ctx context.Context) (int, error) {
	endpoints, err := s.all(ctx)
	if err != nil || len(endpoints) == 0 {
		return 0, err
	}
	r, err := load[json.RawMessage](ctx, s.store, kindCursor, cursorID)
	if err != nil {
		return 0, without(err, ledger.ErrNotFound)
	}
	events, next, err := s.outbox.Next(ctx, r.value, relayPage)
	if err != nil {
		return 0, err
	}
	if len(events) > 0 { // who is there now was there when the last of them happened, or came later
		if endpoints, err = s.all(ctx); err != nil {
			return 0, err
		}
	}
	for i := range events {
		err := s.publish(ctx, endpoints, &events[i], "")
		if errors.Is(err, errUntellable) || errors.Is(err, ledger.ErrObject) { // else nothing that came after it would be told
			s.current().Logger.Error("an event can't be told; webhooks go on without it", slog.String("event", events[i].ID), slog.String("type", events[i].Type),
				slog.Any("error", err))
			continue
		}
		if err != nil {
			return 0, err
		}
	}
	if string(next) == string(r.value) {
		return 0, nil
	}
	if len(events) > 0 {
		faultpoint.Reached("webhooks enqueued")
	}
	r.value = next
	if err := r.save(ctx, s.store); errors.Is(err, ledger.ErrConflict) {
		return 0, nil // another instance has relayed them, too
	} else if err != nil {
		return 0, err
	}
	return len(events), nil
}
