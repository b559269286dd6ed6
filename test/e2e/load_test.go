package e2e

import (
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// loadText makes Caddy load a Caddyfile.
func loadText(t *testing.T, text string) {
	t.Helper()
	if err := tryText(text); err != nil {
		t.Fatal(err)
	}
}

func tryText(text string) error {
	config, err := rig.Adapt(text)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}
