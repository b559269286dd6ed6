package paywall

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Who pays is never limited; who is refused may be so 32 times at once, and then once a second. Others don't suffer.
func TestLimits(t *testing.T) {
	l := &limits{clients: map[string]*spent{}}
	one := func(client string, now time.Time, refused bool) bool {
		end, ok := l.begin(client, now)
		if ok {
			end(refused)
		}
		return ok
	}
	for i := range 10_000 {
		if !one("payer", noon, false) {
			t.Fatalf("a payer was limited after %d payments", i)
		}
	}
	granted := 0
	for range 100 {
		if one("stranger", noon, true) {
			granted++
		}
	}
	if granted != 32 {
		t.Errorf("%d refusals at once", granted)
	}
	granted = 0
	for range 10 {
		if one("stranger", noon.Add(900*time.Millisecond), true) {
			granted++
		}
	}
	if granted > 1 {
		t.Errorf("%d refusals in less than a second", granted)
	}
	if !one("stranger", noon.Add(2*time.Second), true) {
		t.Error("nothing wears off")
	}
	if !one("another", noon, true) {
		t.Error("another client suffers")
	}
	granted = 0
	for range 100 {
		if one("stranger", noon.Add(24*time.Hour), true) {
			granted++
		}
	}
	if granted != 32 {
		t.Errorf("a day later, %d refusals at once", granted)
	}
}

// What is under way counts until it ends, and never more clients are remembered than there is room for.
func TestLimitsUnderWay(t *testing.T) {
	l := &limits{clients: map[string]*spent{}}
	var ends []func(bool)
	for range allowance {
		end, ok := l.begin("busy", noon)
		if !ok {
			t.Fatal("limited below the allowance")
		}
		ends = append(ends, end)
	}
	if _, ok := l.begin("busy", noon); ok {
		t.Error("more under way than is allowed")
	}
	for _, end := range ends {
		end(false)
	}
	if _, ok := l.begin("busy", noon); !ok {
		t.Error("what has ended still counts")
	}
	for i := range maxClients + 100 {
		if end, ok := l.begin(string(rune(i)), noon); ok {
			end(i%2 == 0)
		}
	}
	if len(l.clients) > maxClients+1 {
		t.Errorf("%d clients are remembered", len(l.clients))
	}
}

// However calls come, what is under way is what began and did not end, and nothing goes below zero.
func TestLimitsCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &limits{clients: map[string]*spent{}}
		now, flying := noon, map[string]int{}
		type call struct {
			client string
			end    func(bool)
		}
		var calls []call
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			if len(calls) > 0 && rapid.Bool().Draw(t, "end") {
				i := rapid.IntRange(0, len(calls)-1).Draw(t, "which")
				calls[i].end(rapid.Bool().Draw(t, "refused"))
				flying[calls[i].client]--
				calls = append(calls[:i], calls[i+1:]...)
				continue
			}
			client := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "client")
			if end, ok := l.begin(client, now); ok {
				calls = append(calls, call{client, end})
				flying[client]++
			}
		}
		for name, s := range l.clients {
			if s.flying != flying[name] || s.refused < 0 {
				t.Fatalf("%s: %+v, %d under way", name, s, flying[name])
			}
		}
	})
}
