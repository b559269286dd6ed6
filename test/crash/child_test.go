package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// The environment of a child process: the configuration that it serves, and the step after which it kills itself.
const (
	envConfig = "X402_CRASH_CONFIG"
	envStep   = "X402_CRASH_STEP"
)

// TestMain runs the tests, or, started by one of them, a Caddy of its own that dies where it is told to.
func TestMain(m *testing.M) {
	if path := os.Getenv(envConfig); path != "" {
		if err := serve(path, os.Getenv(envStep)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(path, step string) error {
	if step != "" {
		faultpoint.Set(func(s string) {
			if s == step {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // nothing more happens in this process
			}
		})
	}
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

// child is a Caddy in a process of its own.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a child with the configuration of o until it is killed; step is where it kills itself, or "".
func start(t *testing.T, o rig.Options, dir, addr, upstream, step string) *child {
	t.Helper()
	config, err := rig.Adapt(rig.Caddyfile(o, dir, addr, upstream))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), envConfig+"="+path, envStep+"="+step, "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		defer close(c.done)
		buf := make([]byte, 16)
		n, _ := out.Read(buf)
		ready <- strings.HasPrefix(string(buf[:n]), "ready")
		_ = c.cmd.Wait()
	}()
	t.Cleanup(c.kill)
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("the child did not start")
		}
	case <-time.After(time.Minute):
		t.Fatal("the child did not start in time")
	}
	return c
}

// kill ends the child as a power cut would.
func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL)
	<-c.done
}
