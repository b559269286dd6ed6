package crash

import (
	"os"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func TestMain(m *testing.M) {
	rig.Main()
	os.Exit(m.Run())
}

// start runs a Caddy with the configuration of o until it is killed; step is where it kills itself, or "".
func start(t *testing.T, o rig.Options, dir, addr, upstream, step string) *rig.Process {
	t.Helper()
	p := rig.NewProcess(t, dir, "caddy", addr, rig.Caddyfile(o, dir, addr, upstream))
	if err := p.StartUntil(step); err != nil {
		t.Fatal(err)
	}
	return p
}
