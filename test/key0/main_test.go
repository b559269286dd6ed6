package key0

import (
	"os"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// envCommand makes a child process the caddy command, with all modules that the tests have.
const envCommand = "X402_KEY0_COMMAND"

// TestMain runs the tests, or, started by one of them, Caddy as a user does.
func TestMain(m *testing.M) {
	if os.Getenv(envCommand) != "" {
		os.Args[0] = "caddy"
		caddycmd.Main()
		return
	}
	os.Exit(m.Run()) // what Caddy leaves behind of ours is looked for by the rig
}
