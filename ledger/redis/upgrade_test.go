package redis_test

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// replay gives a server the commands of a file, one a line, as redis-cli takes them.
func replay(t *testing.T, r *service.Redis, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var args []any
		for rest := lines.Text(); rest != ""; rest = strings.TrimPrefix(rest, " ") {
			word, err := strconv.QuotedPrefix(rest)
			if err != nil {
				t.Fatalf("%s: %v in %s", path, err, rest)
			}
			rest = rest[len(word):]
			text, err := strconv.Unquote(word)
			if err != nil {
				t.Fatalf("%s: %v in %s", path, err, word)
			}
			args = append(args, text)
		}
		if _, err := r.Do(t.Context(), args...); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func sorted(ps []ledger.Payment) (ids []string) {
	for i := range ps {
		ids = append(ids, ps[i].ID)
	}
	slices.Sort(ids)
	return ids
}

// What was to be paid back before the ledger knew how is handed out to be, once and until it is; and nothing else that is over. The file is
// what the version before refunds has written: payments that wait for a refund, that were served, that are under way, and that are in
// quarantine.
func TestUpgradeToRefunds(t *testing.T) {
	r := single(t, service.RedisOptions{})
	replay(t, r, "testdata/before-refunds.redis")
	ctx, now := t.Context(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	options := redis.Options{Now: func() time.Time { return now }}
	s := open(t, r.URL(), options)
	listed := func(state ledger.State, want int) []ledger.Payment {
		t.Helper()
		got, err := s.List(ctx, ledger.Query{State: state, Limit: 100})
		if err != nil || len(got) != want {
			t.Fatalf("%d payments are %s, want %d; %v", len(got), state, want, err)
		}
		return got
	}
	leased := func(s *redis.Store) []string {
		t.Helper()
		got, err := s.Lease(ctx, 100, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return sorted(got)
	}
	pending := listed(ledger.StateRefundPending, 5)
	want := sorted(slices.Concat(pending, listed(ledger.StatePaid, 1), listed(ledger.StateSettling, 1)))
	listed(ledger.StateRefundFailed, 1)
	listed(ledger.StateDelivered, 2)
	if got := leased(s); !slices.Equal(got, want) {
		t.Errorf("leased %q, want %q", got, want)
	}
	if got := leased(open(t, r.URL(), options)); len(got) != 0 {
		t.Errorf("another leased %q", got)
	}
	for i := range pending {
		p := &pending[i]
		trail, err := s.Audit(ctx, p.ID)
		if err == nil {
			err = ledger.VerifyAudit(p, trail)
		}
		if err != nil {
			t.Error(err)
		}
	}
	over := slices.DeleteFunc(pending, func(p ledger.Payment) bool { return !p.Final }) // that version looked after the others
	if len(over) != 4 {
		t.Fatalf("%d are final, want 4", len(over))
	}
	done, err := s.Update(ctx, over[0].ID, over[0].Version, ledger.Change{Event: ledger.EventRefunded, Actor: "refunder"})
	if err != nil || done.State() != ledger.StateRefunded {
		t.Fatalf("%+v, %v", done, err)
	}
	// An instance of that version still runs, and takes one for done.
	lost := strings.TrimPrefix(over[1].ID, "pay_")
	keys, err := r.Do(ctx, "KEYS", "x402:{*}:d")
	list, _ := keys.([]any)
	if err != nil || len(list) == 0 {
		t.Fatal(keys, err)
	}
	for _, key := range list {
		if _, err := r.Do(ctx, "ZREM", key, lost); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(2 * time.Minute)
	want = slices.DeleteFunc(want, func(id string) bool { return id == done.ID || id == over[1].ID })
	if got := leased(s); !slices.Equal(got, want) {
		t.Errorf("leased %q, want %q", got, want)
	}
	now = now.Add(10 * time.Minute)
	want = append(want, over[1].ID)
	slices.Sort(want)
	if got := leased(s); !slices.Equal(got, want) {
		t.Errorf("leased %q, want %q", got, want)
	}
}
