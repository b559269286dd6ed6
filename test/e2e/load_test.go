package e2e

import (
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// loadText makes Caddy load a Caddyfile.
func loadText(t *testing.T, text string) {
	t.Helper()
	if err := rig.LoadText(text); err != nil {
		t.Fatal(err)
	}
}
