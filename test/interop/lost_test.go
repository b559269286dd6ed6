//go:build interop

package interop

import (
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
)

// What the stock client does with what is not 402: it gives it to its caller as it is. A 503 is not asked again, and its
// Retry-After is not looked at; a caller who asks again signs a new authorization. A connection that breaks is an error
// ("TypeError: fetch failed", with the socket's error as its cause); nothing is sent again. A second 402 is given to the
// caller as well, so that a refused payment is one request, not a loop.

func TestAnswerLostAfterSettlement(t *testing.T) {
	bed.Install(t, ".")
	bed.LostAnswer(t, ".", network)
}

func TestConnectionLostWhileSettling(t *testing.T) {
	bed.Install(t, ".")
	t.Run("GET", func(t *testing.T) { bed.LostWhileSettling(t, ".", network, http.MethodGet, "") })
	t.Run("POST", func(t *testing.T) { bed.LostWhileSettling(t, ".", network, http.MethodPost, "tea") })
}
