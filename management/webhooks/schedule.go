package webhooks

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// delays are how long each attempt waits for the one before it, as the Standard Webhooks specification suggests: a receiver may be down for
// three days.
var delays = [...]time.Duration{
	0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// MaxAttempts is how often a delivery is tried before it is dead.
const MaxAttempts = len(delays)

// longestRetryAfter bounds what a receiver may ask for.
const longestRetryAfter = 24 * time.Hour

// delay is how long to wait after tries attempts that failed, when the receiver asked to be left alone for retryAfter; false: that was the
// last one. Up to a fifth is added by chance, so that what failed together does not come back together.
func delay(tries int, retryAfter time.Duration) (time.Duration, bool) {
	if tries >= len(delays) {
		return 0, false
	}
	d := max(delays[tries], min(retryAfter, longestRetryAfter))
	return d + rand.N(d/5+1), true //nolint:gosec // it only spreads the load
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, 10.2.3). Zero: there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
