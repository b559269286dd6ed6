//go:build interop

package webhooks

import (
	"os"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func TestMain(m *testing.M) {
	rig.Main()
	os.Exit(m.Run())
}

// patience is how long tests wait for what comes soon, unless the machine is busy.
const patience = 90 * time.Second
