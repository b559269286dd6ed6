package chaos

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

const (
	// host is what clients call the site by, whichever instance they reach.
	host = "shop.test"
	// passes is how many different passes are sold; each payer wants each of them once.
	passes = 8
)

// Prices in atomic units, one for each way to pay, so that no payment can be taken for another's.
const (
	priceGet           = 10_000
	pricePost          = 20_000
	priceAuthorization = 30_000
	priceDeferred      = 40_000
	pricePass          = 50_000
)

// What may be owed, by each payer and by all together: two things, and ten, which is less than they want when the chain stands still.
const (
	creditPayer = 2 * priceDeferred
	creditTotal = 10 * priceDeferred
)

// refundWallet pays back what was paid and not delivered.
var refundWallet = devnet.Payer(10_000)

// refundMoney is what it has: more than all payments together.
const refundMoney = 1_000_000_000

// wallets are how many pay the gas; each instance has the keys of all of them.
const wallets = 3

// stuckAfter is when a transaction is replaced: as soon as may be.
const stuckAfter = "5s"

// tokenKey signs the tokens of all instances. What they open ends with the test.
var tokenKey = rand.Text() + rand.Text()

// settings are the timings of the instances: short, so that what takes minutes in a shop takes seconds here.
const settings = `
		max_timeout    60s
		settle_timeout 8s
		hold_ttl       3s
		min_age        15s
		interval       500ms`

// caddyfile is the configuration of one instance.
func caddyfile(store, rpc, addr, upstream string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{
	admin off
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	grace_period 5s
	log default {
		level INFO
		output stderr
		format json
	}
	x402 {
		network base-sepolia
		pay_to %s
		rpc %s
		wallet%s {
			stuck_after %s
			max_spend 50
		}
		credit $0.08 $0.40
		refund 0x%x {
			interval 1s
			min_age  5s
		}
		store %s
		token_key {env.CHAOS_TOKEN_KEY}
		public_url http://%s
		%s
	}
}
http://%s:%s {
	x402 /get/* $0.01
	x402 /post/* $0.02
	x402 /authorization/* $0.03 {
		flow authorization
	}
	x402 /deferred/* $0.04 {
		flow deferred
	}
`, rig.PayTo, rpc, gasKeys(), stuckAfter, crypto.FromECDSA(refundWallet.Key), store, host, settings, host, port(addr))
	for i := range passes {
		fmt.Fprintf(&b, "\tx402 /pass-%d/* {\n\t\tplan day $0.05 {\n\t\t\tttl 24h\n\t\t}\n\t}\n", i)
	}
	fmt.Fprintf(&b, "\tx402_service\n\treverse_proxy %s\n}\n", upstream)
	return b.String()
}

func gasKeys() string {
	var b strings.Builder
	for i := range wallets {
		fmt.Fprintf(&b, " 0x%x", crypto.FromECDSA(gasWallet(i).Key))
	}
	return b.String()
}

func gasWallet(i int) devnet.Account { return devnet.Developer(i) }

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// instance is a Caddy in a process of its own, which is killed and started again.
type instance struct {
	name   string
	addr   string
	config string
	log    string

	mu     sync.Mutex
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	wanted bool          // false while it is meant to be dead
	deaths []string      // ends that nobody asked for
}

func newInstance(t *testing.T, dir, name, addr, caddyfile string) *instance {
	t.Helper()
	config, err := rig.Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	in := &instance{name: name, addr: addr, config: filepath.Join(dir, name+".json"), log: filepath.Join(dir, name+".log")}
	if err := os.WriteFile(in.config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.kill)
	return in
}

// start starts the process; it writes to the instance's log.
func (in *instance) start() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.wanted {
		return nil
	}
	log, err := os.OpenFile(in.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	home := filepath.Dir(in.log)
	cmd := exec.Command(os.Args[0])
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), envConfig+"="+in.config, "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home,
		"CHAOS_TOKEN_KEY="+tokenKey, "GOMAXPROCS=2")
	if _, err := cmd.StdinPipe(); err != nil { // closed when we end, however that is; and by Wait
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	in.cmd, in.done, in.wanted = cmd, done, true
	go in.watch(cmd, done)
	return nil
}

// watch notes when a process ends by itself: the harness only ever kills.
func (in *instance) watch(cmd *exec.Cmd, done chan struct{}) {
	defer close(done)
	err := cmd.Wait()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.wanted && in.cmd == cmd {
		in.wanted = false
		in.deaths = append(in.deaths, fmt.Sprintf("%s ended by itself: %v; see %s", in.name, err, in.log))
	}
}

// kill ends the process as a power cut would.
func (in *instance) kill() {
	in.mu.Lock()
	cmd, done := in.cmd, in.done
	in.wanted = false
	in.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	<-done
}

// signal pauses and wakes the process.
func (in *instance) signal(s syscall.Signal) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.wanted {
		_ = in.cmd.Process.Signal(s)
	}
}

// crashes are the ends that nobody asked for.
func (in *instance) crashes() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.deaths
}

// alarms are what the instance's log tells of mistakes in our own code.
func (in *instance) alarms() []string {
	log, err := os.ReadFile(in.log)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, word := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if n := strings.Count(string(log), word); n > 0 {
			list = append(list, fmt.Sprintf("%s: %d times %q in %s", in.name, n, word, in.log))
		}
	}
	return list
}

// listening reports whether the instance takes connections.
func (in *instance) listening() error {
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		return errors.New(in.name + " does not listen")
	}
	return c.Close()
}
