package paywall

import (
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Nobody gets more than the allowance in any stretch of time, and who waits gets it again; one caller costs another nothing.
func TestCallers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 20).Draw(t, "most")
		per := time.Duration(rapid.IntRange(1, 5_000).Draw(t, "ms")) * time.Millisecond
		l := callers{most: most, per: per}
		now := time.Unix(1_800_000_000, 0)
		admitted := map[string][]time.Time{}
		for range rapid.IntRange(1, 100).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(per)/2).Draw(t, "later")))
			who := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "who")
			if l.admit(who, now) {
				admitted[who] = append(admitted[who], now)
			} else if len(admitted[who]) < most {
				t.Fatalf("%s was refused after %d of %d", who, len(admitted[who]), most)
			}
		}
		for who, at := range admitted {
			for i := range at {
				// At most once the allowance, and what came back within the time since.
				since := now.Sub(at[i])
				if n := len(at) - i; int64(n) > int64(most)+int64(since)/(int64(per)/int64(most))+1 {
					t.Fatalf("%s was admitted %d times in %s, with %d in %s", who, n, since, most, per)
				}
			}
		}
		now = now.Add(per)
		for i := range most {
			if !l.admit("a", now) {
				t.Fatalf("who has waited is refused after %d of %d", i, most)
			}
		}
	})
}

// Many callers take no more memory than some, and lock nobody out who is known.
func TestCallersAreForgotten(t *testing.T) {
	l := callers{most: 2, per: time.Minute}
	now := time.Unix(1_800_000_000, 0)
	for i := range maxClients + 100 {
		l.admit(strconv.Itoa(i), now)
	}
	if n := len(l.full); n > maxClients+1 {
		t.Errorf("%d are remembered", n)
	}
	if !l.admit("0", now) || l.admit("0", now) {
		t.Error("who is known has another allowance")
	}
	if l.admit("new", now) {
		t.Error("the new ones don't share an allowance")
	}
	now = now.Add(2 * time.Minute)
	if !l.admit("new", now) || len(l.full) > 2 {
		t.Errorf("%d are remembered for ever", len(l.full))
	}
}
