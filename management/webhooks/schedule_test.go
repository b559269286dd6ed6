package webhooks

import (
	"net/http"
	"testing"
	"time"
)

// Delays are those of the specification, and a little more by chance; a receiver may ask for more, not for less.
func TestSchedule(t *testing.T) {
	for tries := 1; tries <= MaxAttempts; tries++ {
		for _, asked := range []time.Duration{0, time.Second, time.Hour, 1000 * time.Hour} {
			d, again := delay(tries, asked)
			if again != (tries < MaxAttempts) {
				t.Fatalf("after %d attempts: %t", tries, again)
			}
			if !again {
				continue
			}
			if least := max(delays[tries], min(asked, longestRetryAfter)); d < least || d > least+least/5+1 {
				t.Errorf("after %d attempts, asked for %s: %s", tries, asked, d)
			}
		}
	}
	now := time.Unix(1_800_000_000, 0)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "7.5": 0, "soon": 0, "99999999999999999999": 0,
		now.Add(time.Minute).UTC().Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
