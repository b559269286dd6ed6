package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// What this program is when a test starts it: the caddy command, or a Caddy that serves a configuration until it is killed.
const (
	asCommand = "X402_TEST_AS_COMMAND"
	asServer  = "X402_TEST_AS_SERVER"
)

func init() {
	if os.Getenv(asCommand) != "" {
		os.Args[0] = "caddy"
		caddycmd.Main()
		os.Exit(0)
	}
}

func TestMain(m *testing.M) {
	if path := os.Getenv(asServer); path != "" {
		fmt.Fprintln(os.Stderr, serve(path))
		os.Exit(1)
	}
	// It sleeps for some seconds after a lock of the storage was given back.
	goleak.VerifyTestMain(m, append(devnet.LeakOptions(), goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))...)
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

// host is what clients call the site by, whichever instance they reach.
const host = "shop.test"

const shop = `
	x402 /plans/* {
		plan day $0.10 {
			ttl 24h
		}
	}
	x402_service
	reverse_proxy {upstream}
`

// fleet is instances that share a storage, a ledger and a chain.
type fleet struct {
	t        *testing.T
	dir      string
	chain    *devnet.Chain
	upstream *rig.Upstream
	members  []*member
}

// member is a Caddy in a process of its own.
type member struct {
	addr, admin string
	config, log string
	cmd         *exec.Cmd
}

func newFleet(t *testing.T, n int, upstream http.HandlerFunc) *fleet {
	t.Helper()
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	f := &fleet{t: t, dir: t.TempDir(), chain: chain, upstream: rig.NewUpstream(t, upstream)}
	for i := range n {
		m := &member{
			addr: rig.FreeAddr(t), admin: rig.FreeAddr(t),
			config: filepath.Join(f.dir, fmt.Sprintf("%d.json", i)), log: filepath.Join(f.dir, fmt.Sprintf("%d.log", i)),
		}
		_, port, _ := net.SplitHostPort(m.addr)
		text := rig.Caddyfile(rig.Options{Site: shop, RPC: chain.URL(), App: "public_url http://" + host},
			f.dir, net.JoinHostPort(host, port), f.upstream.Addr())
		config, err := rig.Adapt(strings.Replace(text, "admin off", "admin "+m.admin, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.config, config, 0o600); err != nil {
			t.Fatal(err)
		}
		f.members = append(f.members, m)
		f.start(m)
		t.Cleanup(func() { f.kill(m) })
	}
	return f
}

// start starts an instance, and waits until it answers.
func (f *fleet) start(m *member) {
	f.t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command(os.Args[0])
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.Env = append(os.Environ(), asServer+"="+m.config, "HOME="+f.dir, "XDG_CONFIG_HOME="+f.dir, "XDG_DATA_HOME="+f.dir)
	if _, err := m.cmd.StdinPipe(); err != nil { // closed when we end, however that is
		f.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.await("an instance", 30*time.Second, func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

// kill ends an instance as a power cut would.
func (f *fleet) kill(m *member) {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGKILL)
	_ = m.cmd.Wait()
	m.cmd = nil
	if log, err := os.ReadFile(m.log); err == nil {
		for _, word := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
			if bytes.Contains(log, []byte(word)) {
				f.t.Errorf("an instance says %q:\n%s", word, log)
			}
		}
	}
}

// await waits until something is so, and gives how long it took.
func (f *fleet) await(what string, most time.Duration, met func() bool) time.Duration {
	f.t.Helper()
	begun := time.Now()
	for !met() {
		if time.Since(begun) > most {
			f.t.Fatalf("%s: not within %s", what, most)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begun)
}

// ask sends a request to an instance; header pairs follow.
func (m *member) ask(b *rig.Buyer, path string, header ...string) rig.Answer {
	return b.Get("http://"+m.addr+path, append(header, "Host", host)...)
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// buy buys the plan at an instance; it gives the token, and the header that paid.
func (f *fleet) buy(m *member, b *rig.Buyer) (token, header string, err error) {
	offered := m.ask(b, "/plans/x")
	if offered.Status != http.StatusPaymentRequired {
		return "", "", fmt.Errorf("the offer: %d %w %s", offered.Status, offered.Err, offered.Body)
	}
	header = b.Sign(rig.Offered(f.t, offered), 0)
	a := m.ask(b, "/plans/x", x402.HeaderSignature, header)
	token = a.Header.Get("X-Access-Token")
	if a.Status != http.StatusOK || token == "" {
		return "", "", fmt.Errorf("buying: %d %w %s", a.Status, a.Err, a.Body)
	}
	return token, header, nil
}

func (f *fleet) mustBuy(m *member, b *rig.Buyer) (token, header string) {
	f.t.Helper()
	token, header, err := f.buy(m, b)
	if err != nil {
		f.t.Fatal(err)
	}
	return token, header
}

// ran is how a command ended.
type ran struct {
	code     int
	out, err string
}

// run runs "caddy x402 …".
func (f *fleet) run(args ...string) ran {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), os.Args[0], append([]string{"x402"}, args...)...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), asCommand+"=1", "HOME="+f.dir, "XDG_CONFIG_HOME="+f.dir, "XDG_DATA_HOME="+f.dir)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return ran{e.ExitCode(), out.String(), errOut.String()}
	} else if err != nil {
		f.t.Fatal(err)
	}
	return ran{0, out.String(), errOut.String()}
}

// keyList is what "caddy x402 keys" prints.
type keyList struct {
	Source string    `json:"source"`
	Keys   []keyInfo `json:"keys"`
	Error  struct {
		Code string `json:"code"`
	} `json:"error"`
}

type keyInfo struct {
	ID            string    `json:"id"`
	Algorithm     string    `json:"algorithm"`
	State         string    `json:"state"`
	SignsFrom     time.Time `json:"signs_from"`
	VerifiesUntil time.Time `json:"verifies_until"`
	LongestToken  int64     `json:"longest_token_seconds"`
}

// keys runs a command that prints the ring, or an error, and must end in the code.
func (f *fleet) keys(code int, args ...string) keyList {
	f.t.Helper()
	r := f.run(append([]string{"keys"}, args...)...)
	var list keyList
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || r.code != code {
		f.t.Fatalf("keys %v: code %d, want %d: %v\n%s%s", args, r.code, code, err, r.out, r.err)
	}
	if strings.Contains(r.out+r.err, "PRIVATE") {
		f.t.Fatal("a command shows a private key")
	}
	return list
}

func (l *keyList) of(state string) keyInfo {
	for _, k := range l.Keys {
		if k.State == state {
			return k
		}
	}
	return keyInfo{}
}
