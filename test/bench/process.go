package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startPatience = 30 * time.Second
	stopPatience  = 5 * time.Second
)

// process is a server that we started.
type process struct {
	name string
	addr string // where it listens
	log  string
	cmd  *exec.Cmd
	in   io.Closer     // its standard input, which ends with us
	done chan struct{} // closed when it has ended
}

// launch starts a server and waits until it takes connections. What it prints goes into a file in dir. addr is where it will
// listen, which is the starter's to choose.
func launch(ctx context.Context, dir, name, addr string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, addr: addr, log: filepath.Join(dir, name+".log"), cmd: cmd, done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, stopPatience
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.in = in
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is told by its log
	}()
	if err := p.listens(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, p.lastWords()), p.stop())
	}
	return p, nil
}

// listens waits until somebody takes connections at the address.
func (p *process) listens(ctx context.Context) error {
	deadline := time.After(startPatience)
	var dialer net.Dialer
	for {
		if c, err := dialer.DialContext(ctx, "tcp", p.addr); err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended by itself", p.name)
		case <-deadline:
			return fmt.Errorf("%s does not listen after %s", p.name, startPatience)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends it, at first politely.
func (p *process) stop() error {
	_ = p.in.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return nil
}

// alive is an error if it has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself\n%s", p.name, p.lastWords())
	default:
		return nil
	}
}

// lastWords is the end of its log.
func (p *process) lastWords() []byte {
	log, _ := os.ReadFile(p.log)
	return bytes.TrimSpace(log[max(0, len(log)-2000):])
}

// cpu is the time that it has used; 0 on systems without /proc.
func (p *process) cpu() time.Duration { return cpuOf(p.cmd.Process.Pid) }

func cpuOf(pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// "id (name) state ...", and the name may hold anything. Times are the 14th and 15th field, in hundredths of a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// resident is how many bytes of memory it has; 0 on systems without /proc.
func (p *process) resident() uint64 { return residentOf(p.cmd.Process.Pid) }

func residentOf(pid int) uint64 {
	statm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
