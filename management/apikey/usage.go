package apikey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	kindUsage = "api_key_usage"
	// UsageDays is for how many days is known how much keys were used.
	UsageDays = 90
	// dayLayout makes names of days that sort as the days do.
	dayLayout = "20060102"
	usagePage = 500
)

// Use is how often keys were used on a day, which begins at midnight UTC.
type Use struct {
	Day   time.Time
	Calls int64
	// Errors are those of the calls that were answered with a status of 400 or more.
	Errors int64
}

// Usage counts the calls of keys. What was counted is in memory until Flush adds it to what the store has, so a process that is killed loses what it
// has counted since. It may be used by many at once.
type Usage struct {
	mu    sync.Mutex
	calls map[usageID]usageCount
}

type usageID struct {
	key  string
	mode Mode
	day  string
}

// usageCount is what the store has of a key and a day.
type usageCount struct {
	Calls  int64 `json:"calls"`
	Errors int64 `json:"errors"`
}

func (c usageCount) plus(d usageCount) usageCount {
	return usageCount{c.Calls + d.Calls, c.Errors + d.Errors}
}

// Count counts a call with a key at the time now. It never waits for a store.
func (u *Usage) Count(k *Key, failed bool, now time.Time) {
	one := usageCount{Calls: 1}
	if failed {
		one.Errors = 1
	}
	u.add(usageID{k.ID, k.Mode, now.UTC().Format(dayLayout)}, one)
}

func (u *Usage) add(id usageID, n usageCount) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls == nil {
		u.calls = make(map[usageID]usageCount)
	}
	u.calls[id] = u.calls[id].plus(n)
}

// Flush adds what was counted to what the store has. What can't be written stays, to be written by the next one.
func (u *Usage) Flush(ctx context.Context, s Store) error {
	u.mu.Lock()
	counted := u.calls
	u.calls = nil
	u.mu.Unlock()
	var failed error
	for id, n := range counted {
		if failed == nil {
			failed = write(ctx, s, id, n)
		}
		if failed == nil {
			delete(counted, id)
		}
	}
	for id, n := range counted {
		u.add(id, n)
	}
	return failed
}

// write adds n to what is kept of a key and a day.
func write(ctx context.Context, s Store, id usageID, n usageCount) error {
	day, err := time.Parse(dayLayout, id.day)
	if err != nil {
		return fmt.Errorf("counting the use of a key: %w", err)
	}
	o := ledger.Object{Kind: kindUsage, ID: id.day + "_" + id.key, Group: string(id.mode), Expires: day.AddDate(0, 0, UsageDays+1)}
	if !o.Expires.After(s.Now()) {
		return nil // it is too long ago to be asked for
	}
	for range tries {
		var kept usageCount
		there, err := s.Object(ctx, o.Kind, o.ID)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			o.Version = 0
		case err != nil:
			return fmt.Errorf("counting the use of a key: %w", err)
		default:
			if err := json.Unmarshal(there.Body, &kept); err != nil {
				return fmt.Errorf("counting the use of a key: %w", err)
			}
			o.Version = there.Version
		}
		if o.Body, err = json.Marshal(kept.plus(n)); err != nil {
			return fmt.Errorf("counting the use of a key: %w", err)
		}
		_, err = s.PutObject(ctx, o)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ledger.ErrConflict) && !errors.Is(err, ledger.ErrExists) {
			return fmt.Errorf("counting the use of a key: %w", err)
		}
	}
	return fmt.Errorf("counting the use of a key: %w", ledger.ErrConflict)
}

// Used tells how often keys of a mode, or of both if it is empty, were used on each of the last days, of which today is one: the key with that id, or all
// if it is empty. Days on which nothing was called are there, too.
func (u *Usage) Used(ctx context.Context, s Store, m Mode, key string, days int) ([]Use, error) {
	days = min(max(days, 1), UsageDays)
	now := s.Now().UTC()
	first := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC).AddDate(0, 0, 1-days)
	sums := u.waiting(m, key)
	var err error
	if key == "" {
		err = sums.addAll(ctx, s, m, first)
	} else {
		err = sums.addKey(ctx, s, m, key, first, days)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the use of keys: %w", err)
	}
	out := make([]Use, days)
	for i := range out {
		day := first.AddDate(0, 0, i)
		n := sums[day.Format(dayLayout)]
		out[i] = Use{Day: day, Calls: n.Calls, Errors: n.Errors}
	}
	return out, nil
}

// usageSums are sums by day.
type usageSums map[string]usageCount

// addAll adds what a store has of all keys of a mode since a day.
func (u usageSums) addAll(ctx context.Context, s Store, m Mode, first time.Time) error {
	for after := first.Format(dayLayout); ; { // it sorts before the first key of that day
		page, err := s.Objects(ctx, kindUsage, string(m), after, usagePage)
		if err != nil {
			return err
		}
		for i := range page {
			after = page[i].ID
			if err := u.add(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < usagePage {
			return nil
		}
	}
}

// addKey adds what a store has of one key, by a look for each day: a consumer may ask for its own, and there may be many others.
func (u usageSums) addKey(ctx context.Context, s Store, m Mode, key string, first time.Time, days int) error {
	for i := range days {
		id := first.AddDate(0, 0, i).Format(dayLayout) + "_" + key
		if !ledger.IsObjectName(kindUsage, id) {
			return nil // there is no such key
		}
		o, err := s.Object(ctx, kindUsage, id)
		if errors.Is(err, ledger.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if m == "" || o.Group == string(m) {
			if err := u.add(&o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u usageSums) add(o *ledger.Object) error {
	var n usageCount
	if err := json.Unmarshal(o.Body, &n); err != nil {
		return err
	}
	day, _, _ := strings.Cut(o.ID, "_")
	u[day] = u[day].plus(n)
	return nil
}

// waiting is what was counted here and is not in a store yet, by day.
func (u *Usage) waiting(m Mode, key string) usageSums {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(usageSums)
	for id, n := range u.calls {
		if (m == "" || id.mode == m) && (key == "" || id.key == key) {
			out[id.day] = out[id.day].plus(n)
		}
	}
	return out
}
