// Package chaos runs three Caddy instances on one ledger under load, kills, pauses and cuts off whatever there is, and then
// compares what the chain, the ledger, the upstream and every client say.
//
// It is one test with few knobs, all of them environment variables:
//
//	CHAOS_SECONDS  how long things break (60)
//	CHAOS_STORE    sqlite, postgres, redis, or all (postgres)
//	CHAOS_SEED     what decides who does what; when it happens depends on the machine too
//	CHAOS_DIR      where logs are kept; without it they are kept, in a temporary folder, if the test fails
package chaos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the Caddy that users have
	"go.uber.org/goleak"

	_ "github.com/caddy-x402/caddy-x402" // the modules under test
	"github.com/caddy-x402/caddy-x402/devnet"
)

// envConfig names the configuration that a child process serves.
const envConfig = "X402_CHAOS_CONFIG"

// TestMain runs the test, or, started by it, a Caddy in a process of its own.
func TestMain(m *testing.M) {
	if path := os.Getenv(envConfig); path != "" {
		if err := serve(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, devnet.LeakOptions()...)
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
	_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the process that started us
	return errors.New("the test has ended")
}
