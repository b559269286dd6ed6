//go:build interop

package dashboard

import (
	"crypto/rand"
	"log/slog"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// newKey makes a key for test networks, as the machine's owner does.
func newKey(t *testing.T, store ledger.Store, label string, scopes ...apikey.Scope) string {
	t.Helper()
	k := apikey.Keys{Store: store, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	_, secret, err := k.Create(t.Context(), apikey.Grantor{Actor: "admin", Local: true}, apikey.Request{Mode: apikey.Test, Label: label, Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal()
}
