package plans

import (
	"fmt"
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// envConfig is the configuration that a child process serves.
const envConfig = "X402_PLANS_CONFIG"

// TestMain runs the tests, or, started by one of them, a Caddy of its own until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(envConfig); path != "" {
		if err := serve(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(path string) error {
	config, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}
