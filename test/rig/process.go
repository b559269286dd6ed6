package rig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
)

// What a test's program is when one of its tests starts it: see Main.
const (
	envCommand = "X402_TEST_AS_COMMAND"
	envServer  = "X402_TEST_AS_SERVER"
	// envStep is the step after which a server kills itself.
	envStep = "X402_TEST_ENDS_AFTER"
)

// ready is what a server prints when it has loaded its configuration.
const ready = "ready\n"

// Main makes this program, where one of its tests has started it, the caddy command with all modules that the tests have, or the Caddy of a
// Process; then it does not return. A TestMain calls it first.
func Main() {
	switch path := os.Getenv(envServer); {
	case os.Getenv(envCommand) != "":
		os.Args[0] = "caddy"
		caddycmd.Main()
		os.Exit(0)
	case path != "":
		fmt.Fprintln(os.Stderr, serve(path, os.Getenv(envStep)))
		os.Exit(1)
	}
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
	_, _ = os.Stdout.WriteString(ready)
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
	// Addr is where it listens, Config the file with its configuration, and Log the one with what it says.
	Addr, Config, Log string

	t   testing.TB
	dir string

	mu            sync.Mutex
	cmd           *exec.Cmd // nil: it does not run
	loaded, ended chan struct{}
}

// NewProcess makes one that serves a Caddyfile on addr. Its files are in dir, under a name of its own. It is started by Start or Launch, and ends
// with the test; if that has failed, the test tells what it said last.
func NewProcess(t testing.TB, dir, name, addr, caddyfile string) *Process {
	t.Helper()
	config, err := Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Addr: addr, t: t, dir: dir, Config: filepath.Join(dir, name+".json"), Log: filepath.Join(dir, name+".log")}
	if err := os.WriteFile(p.Config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s says:\n%s", name, p.said())
		}
	})
	return p
}

// Start starts it, and waits until it has loaded its configuration.
func (p *Process) Start() error { return p.StartUntil("") }

// StartUntil is Start of one that kills itself right after step, if that is not empty: see faultpoint.
func (p *Process) StartUntil(step string) error {
	if err := p.launch(step); err != nil {
		return err
	}
	return p.Ready()
}

// Launch starts it, and does not wait; see Ready.
func (p *Process) Launch() error { return p.launch("") }

func (p *Process) launch(step string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Stderr = log
	cmd.Env = append(home(p.dir), envServer+"="+p.Config, envStep+"="+step)
	if _, err := cmd.StdinPipe(); err != nil { // closed when we end, however that is
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	loaded, ended := make(chan struct{}), make(chan struct{})
	p.cmd, p.loaded, p.ended = cmd, loaded, ended
	go func() {
		defer close(ended)
		lines := bufio.NewReader(out)
		if line, _ := lines.ReadString('\n'); line == ready {
			close(loaded)
		}
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait()
	}()
	return nil
}

// Ready waits until it has loaded its configuration.
func (p *Process) Ready() error {
	p.mu.Lock()
	loaded, ended := p.loaded, p.ended
	p.mu.Unlock()
	select {
	case <-loaded:
	case <-ended:
	case <-time.After(Patience):
		return fmt.Errorf("an instance has not loaded its configuration after %s", Patience)
	}
	select {
	case <-ended:
		return fmt.Errorf("an instance has ended:\n%s", p.said())
	default:
		return nil
	}
}

// Ended is closed when the process that was started last has ended, however that was.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
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
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return
	}
	for _, word := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if i := bytes.Index(log, []byte(word)); i >= 0 {
			p.t.Errorf("an instance says, see %s:\n%s", p.Log, log[i:min(i+someOfALog, len(log))])
		}
	}
}

// someOfALog is how much of a log a test shows, in bytes.
const someOfALog = 8 << 10

// said is what it said last.
func (p *Process) said() []byte {
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return []byte(err.Error())
	}
	return log[max(0, len(log)-someOfALog):]
}
