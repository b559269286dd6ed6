package refunds

import (
	"os"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func TestMain(m *testing.M) {
	rig.Main()
	os.Exit(m.Run()) // what Caddy leaves behind of ours is looked for by the rig
}

// command runs "caddy x402 refunds …".
func command(t *testing.T, dir string, args ...string) rig.Ran {
	t.Helper()
	return rig.Command(t, dir, append([]string{"x402", "refunds"}, args...)...)
}
