//go:build interop_v1

package v1

import (
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
)

// This client knows no extensions, so it can't resume even with the same header. Like its successor it gives a 503 to
// its caller as it is, and throws where the connection breaks.

func TestAnswerLostAfterSettlement(t *testing.T) {
	bed.Install(t, ".")
	bed.LostAnswer(t, ".", network)
}

func TestConnectionLostWhileSettling(t *testing.T) {
	bed.Install(t, ".")
	t.Run("GET", func(t *testing.T) { bed.LostWhileSettling(t, ".", network, http.MethodGet, "") })
	t.Run("POST", func(t *testing.T) { bed.LostWhileSettling(t, ".", network, http.MethodPost, "tea") })
}
