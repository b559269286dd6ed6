package refunds

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// instance is a Caddy in a process of its own, which is killed and started again.
type instance struct {
	addr, admin, config, log string

	mu    sync.Mutex
	cmd   *exec.Cmd
	kills []time.Time
}

func newInstance(t *testing.T, dir, name, addr, admin, caddyfile string) *instance {
	t.Helper()
	config, err := rig.Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	in := &instance{addr: addr, admin: admin, config: filepath.Join(dir, name+".json"), log: filepath.Join(dir, name+".log")}
	if err := os.WriteFile(in.config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.kill)
	return in
}

func (in *instance) start() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	log, err := os.OpenFile(in.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	home := filepath.Dir(in.log)
	cmd := exec.Command(os.Args[0])
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), envConfig+"="+in.config, "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home)
	if _, err := cmd.StdinPipe(); err != nil { // closed when we end, however that is
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in.cmd = cmd
	return nil
}

// kill ends the process as a power cut would.
func (in *instance) kill() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cmd == nil {
		return
	}
	_ = in.cmd.Process.Signal(syscall.SIGKILL)
	_ = in.cmd.Wait()
	in.cmd = nil
	in.kills = append(in.kills, time.Now())
}

// killed are the times at which the instance was killed.
func (in *instance) killed() []time.Time {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.kills
}

func (in *instance) listens() bool {
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// says counts how often the instance's log has a text.
func (in *instance) says(text string) int {
	log, err := os.ReadFile(in.log)
	if err != nil {
		return 0
	}
	return strings.Count(string(log), text)
}

// counts reads a metric.
func (in *instance) counts(b *rig.Buyer, metric string) (n int) {
	_, rest, ok := strings.Cut(b.Get("http://"+in.admin+"/metrics").Body, "\n"+metric+" ")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	if _, err := fmt.Sscan(line, &n); err != nil {
		return -1
	}
	return n
}
