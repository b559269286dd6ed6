package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// What a test's program is when one of its tests starts it: see Main.
const (
	envCommand = "X402_TEST_AS_COMMAND"
	envServer  = "X402_TEST_AS_SERVER"
)

// Main makes this program, where one of its tests has started it, the caddy command with all modules that the tests have, or the Caddy of a
// Process; then it does not return. A TestMain calls it first.
func Main() {
	switch path := os.Getenv(envServer); {
	case os.Getenv(envCommand) != "":
		os.Args[0] = "caddy"
		caddycmd.Main()
		os.Exit(0)
	case path != "":
		fmt.Fprintln(os.Stderr, serve(path))
		os.Exit(1)
	}
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

// home makes dir a user's home: commands and instances keep their files there.
func home(dir string) []string {
	return append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
}

// Ran is how a command ended.
type Ran struct {
	Code     int
	Out, Err string
}

// Command runs "caddy …" in dir, which is its home, too.
func Command(t testing.TB, dir string, args ...string) Ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Dir, cmd.Env = dir, append(home(dir), envCommand+"=1")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return Ran{e.ExitCode(), out.String(), errOut.String()}
	} else if err != nil {
		t.Fatal(err)
	}
	return Ran{0, out.String(), errOut.String()}
}

// Process is a Caddy in a process of its own, which can be killed and started again.
type Process struct {
	// Addr is where it listens, and Config the file with its configuration.
	Addr, Config string

	t        testing.TB
	dir, log string

	mu    sync.Mutex
	cmd   *exec.Cmd // nil: it does not run
	ended chan struct{}
}

// startPatience is how long a process may take until it listens.
const startPatience = 30 * time.Second

// NewProcess makes one that serves a Caddyfile on addr. Its files are in dir, under a name of its own. It is started by Start, and ends with
// the test.
func NewProcess(t testing.TB, dir, name, addr, caddyfile string) *Process {
	t.Helper()
	config, err := Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Addr: addr, t: t, dir: dir, Config: filepath.Join(dir, name+".json"), log: filepath.Join(dir, name+".log")}
	if err := os.WriteFile(p.Config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Start starts it, and waits until it listens.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(home(p.dir), envServer+"="+p.Config)
	if _, err := cmd.StdinPipe(); err != nil { // closed when we end, however that is
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	for begun := time.Now(); !listens(p.Addr); time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			said, _ := os.ReadFile(p.log)
			return fmt.Errorf("an instance did not start:\n%s", said)
		default:
		}
		if time.Since(begun) > startPatience {
			return fmt.Errorf("an instance does not listen after %s", startPatience)
		}
	}
	return nil
}

func listens(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// Kill ends it as a power cut would, and fails the test if it had gone wrong before. One that does not run stays as it is.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.ended
	p.cmd = nil
	log, err := os.ReadFile(p.log)
	if err != nil {
		return
	}
	for _, word := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if bytes.Contains(log, []byte(word)) {
			p.t.Errorf("an instance says %q:\n%s", word, log)
		}
	}
}
