package refunds

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the Caddy that users have

	_ "github.com/caddy-x402/caddy-x402" // the modules under test
)

const (
	// envConfig names the configuration that a child process serves.
	envConfig = "X402_REFUNDS_CONFIG"
	// envCommand makes a child process the caddy command, with all modules that the tests have.
	envCommand = "X402_REFUNDS_COMMAND"
)

// TestMain runs the tests, or, started by one of them, a Caddy in a process of its own.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envCommand) != "":
		os.Args[0] = "caddy"
		caddycmd.Main()
		return
	case os.Getenv(envConfig) != "":
		if err := serve(os.Getenv(envConfig)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run()) // what Caddy leaves behind of ours is looked for by the rig
}

func serve(path string) error {
	config, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the process that started us
	return errors.New("the test has ended")
}

// command runs "caddy x402 refunds …".
func command(t *testing.T, dir string, args ...string) (code int, out, errOut string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"x402", "refunds"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), envCommand+"=1", "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), o.String(), e.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, o.String(), e.String()
}
