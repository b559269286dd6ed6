// Package events is the live feed of what happens to payments: server-sent events, made of what the ledger tells.
package events

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// ContentType of a feed.
const ContentType = "text/event-stream; charset=utf-8"

// Event is one that has happened, as listeners see it: the same object as the body of a webhook.
type Event struct {
	ID        string          `json:"id" doc:"The same whenever it is told"`
	Type      string          `json:"type" example:"payment.delivered"`
	Timestamp time.Time       `json:"timestamp"`
	Livemode  bool            `json:"livemode"`
	Network   string          `json:"network,omitempty" doc:"CAIP-2"`
	Data      json.RawMessage `json:"data"`
}

// Stream tells one listener what happens, at least once: whoever comes back with the id of the last event hears a little of what it knows again.
type Stream struct {
	Source webhooks.Outbox
	// Want chooses the events that the listener may hear of.
	Want func(*webhooks.Event) bool
	// Write sends text to the listener, at once. An error ends the stream.
	Write func(string) error
	// Check says whether the listener may go on listening; it is asked with each beat.
	Check func(context.Context) error
	// Poll is how often is looked for news. Default: 1 s.
	Poll time.Duration
	// Beat is how often something is sent, so that both sides, and what is between them, know that the other is there. Default: 15 s.
	Beat time.Duration
}

const (
	defaultPoll = time.Second
	defaultBeat = 15 * time.Second
	page        = 200
	// reconnect is how long browsers wait before they come back.
	reconnect = 3 * time.Second
)

// Run tells what has happened since from until ctx ends, which is no error.
func (s *Stream) Run(ctx context.Context, from time.Time) error {
	if s.Poll <= 0 {
		s.Poll = defaultPoll
	}
	if s.Beat <= 0 {
		s.Beat = defaultBeat
	}
	cursor, err := s.Source.Start(from)
	if err != nil {
		return fmt.Errorf("events: beginning to listen: %w", err)
	}
	if err := s.Write("retry: " + strconv.FormatInt(reconnect.Milliseconds(), 10) + "\nevent: hello\ndata: {}\n\n"); err != nil {
		return err
	}
	poll, beat := time.NewTicker(s.Poll), time.NewTicker(s.Beat)
	defer poll.Stop()
	defer beat.Stop()
	for {
		if cursor, err = s.tell(ctx, cursor); err != nil {
			return ended(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-beat.C:
			if err := s.Check(ctx); err != nil {
				return ended(ctx, err)
			}
			if err := s.Write(": still here\n\n"); err != nil {
				return ended(ctx, err)
			}
		}
	}
}

// ended is err, unless it comes of the stream's end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// tell sends all that is new, and gives the cursor behind it.
func (s *Stream) tell(ctx context.Context, cursor json.RawMessage) (json.RawMessage, error) {
	for {
		list, next, err := s.Source.Next(ctx, cursor, page)
		if err != nil {
			return cursor, fmt.Errorf("events: looking for news: %w", err)
		}
		var b strings.Builder
		for i := range list {
			if s.Want(&list[i]) {
				if err := write(&b, &list[i]); err != nil {
					return cursor, err
				}
			}
		}
		if b.Len() > 0 {
			if err := s.Write(b.String()); err != nil {
				return cursor, err
			}
		}
		if cursor = next; len(list) < page {
			return cursor, nil
		}
	}
}

// write adds an event to b. JSON has no line breaks, so it is one line of data.
func write(b *strings.Builder, ev *webhooks.Event) error {
	text, err := json.Marshal(Event{ev.ID, ev.Type, ev.At.UTC(), ev.Live, ev.Network, ev.Data})
	if err != nil {
		return fmt.Errorf("events: encoding %s: %w", ev.ID, err)
	}
	fmt.Fprintf(b, "id: %d\nevent: %s\ndata: %s\n\n", ev.At.UnixMicro(), ev.Type, text)
	return nil
}

// overlap is how much of what a listener knows it hears again when it comes back: entries may be seen later than others that are younger.
const overlap = 10 * time.Second

// Since reads a Last-Event-ID: where a listener that comes back begins. One that is new, or was away for longer than most, begins now.
func Since(lastEventID string, now time.Time, most time.Duration) time.Time {
	micros, err := strconv.ParseInt(lastEventID, 10, 64)
	at := time.UnixMicro(micros)
	if err != nil || at.After(now) || now.Sub(at) > most {
		return now
	}
	return at.Add(-overlap)
}
