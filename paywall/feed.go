package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Feed turns the ledger's audit trail into facts, for whoever must be told of each exactly once: the trail is written together with what
// it tells of, so nothing that has happened is missing from it, and it needs no table of its own. What it has read a subscriber keeps as
// a Cursor, together with what it has made of the facts.
//
// Entries are ordered by their time, which they get before they are written; of several writers one with an earlier time may come in
// later. So what is younger than Lag is read, but not passed: the cursor remembers by name which of it was told.
type Feed struct {
	Store FeedStore
	// Lag is how long an entry may take from its time until it can be read. Default: ledger.AnchorLag.
	Lag time.Duration
}

// FeedStore is what a Feed needs of a ledger.
type FeedStore interface {
	Entries(ctx context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error)
	Payment(ctx context.Context, id string) (ledger.Payment, error)
	Now() time.Time
}

// Cursor is how far a subscriber has read. The zero value is the beginning of the ledger.
type Cursor struct {
	// After: everything up to it was told.
	After ledger.Mark `json:"after"`
	// Told are the ids of the facts behind After that were told, in ascending order.
	Told []string `json:"told,omitempty"`
}

// Encode gives the cursor as a text to be stored.
func (c Cursor) Encode() (string, error) {
	raw, err := json.Marshal(c)
	return string(raw), err
}

// ParseCursor reads what Encode gave.
func ParseCursor(s string) (c Cursor, err error) {
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return Cursor{}, fmt.Errorf("reading a cursor: %w", err)
	}
	return c, nil
}

// FromNow is the cursor of a subscriber that is told of what happens from now on.
func (f *Feed) FromNow() Cursor {
	return Cursor{After: ledger.Mark{At: f.Store.Now(), Payment: "\x7f", Version: math.MaxInt64}}
}

const (
	feedPage = 512
	// mostTold bounds a cursor. A ledger in which more happens within Lag is told of when that is over.
	mostTold = 1024
)

// Next gives the facts behind c, oldest first, at most about limit, and the cursor behind them. No facts: there are none yet; the cursor
// may have moved all the same.
func (f *Feed) Next(ctx context.Context, c Cursor, limit int) ([]Fact, Cursor, error) {
	lag := f.Lag
	if lag <= 0 {
		lag = ledger.AnchorLag
	}
	now := f.Store.Now()
	r := &feeding{feed: f, after: c.After, told: make(map[string]bool, len(c.Told)), limit: limit, stable: now.Add(-lag)}
	for _, id := range c.Told {
		r.told[id] = true
	}
	after := c.After
	for !r.full() {
		page, err := f.Store.Entries(ctx, after, now, feedPage)
		if err != nil {
			return nil, c, fmt.Errorf("reading the ledger's trail: %w", err)
		}
		for i := range page {
			if r.full() {
				break
			}
			if err := r.entry(ctx, &page[i]); err != nil {
				return nil, c, err
			}
		}
		if len(page) < feedPage {
			break
		}
		after = page[len(page)-1].Mark()
	}
	return r.facts, Cursor{After: r.after, Told: slices.Sorted(maps.Keys(r.told))}, nil
}

// feeding is one Next.
type feeding struct {
	feed   *Feed
	after  ledger.Mark
	told   map[string]bool // of what is behind after
	facts  []Fact
	limit  int
	stable time.Time // of entries up to this, all are there
	behind bool      // an entry was met that is not stable
}

func (r *feeding) full() bool {
	return len(r.facts) >= r.limit || r.behind && len(r.told) >= mostTold
}

func (r *feeding) entry(ctx context.Context, e *ledger.Entry) error {
	r.behind = r.behind || e.At.After(r.stable)
	if !r.behind {
		r.after = e.Mark()
	}
	for _, kind := range kinds(e.Event, e.Refund) {
		id := factID(e.Payment, e.Version, kind)
		told := r.told[id]
		if !r.behind {
			delete(r.told, id)
		}
		if told {
			continue
		}
		p, err := r.feed.Store.Payment(ctx, e.Payment)
		if errors.Is(err, ledger.ErrNotFound) {
			continue // a ledger that forgets has forgotten it
		}
		if err == nil && p.PaysBack() {
			continue // see Engine.happened
		}
		if r.behind && err == nil {
			r.told[id] = true
		}
		if err != nil {
			return fmt.Errorf("reading payment %s: %w", e.Payment, err)
		}
		r.facts = append(r.facts, Fact{
			ID: id, Kind: kind, At: e.At, Reason: e.Reason, Back: wentBack(kind, e.Transaction), Payment: p,
		})
	}
	return nil
}
