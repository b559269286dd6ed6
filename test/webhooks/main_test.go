//go:build interop

package webhooks

import (
	"os"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func TestMain(m *testing.M) {
	rig.Main()
	os.Exit(m.Run())
}
