package tokens

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) {
	rig.Main()
	// It sleeps for some seconds after a lock of the storage was given back.
	goleak.VerifyTestMain(m, append(devnet.LeakOptions(), goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))...)
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
	*rig.Process
	admin string
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
		addr, admin := rig.FreeAddr(t), rig.FreeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		text := rig.Caddyfile(rig.Options{Site: shop, RPC: chain.URL(), App: "public_url http://" + host},
			f.dir, net.JoinHostPort(host, port), f.upstream.Addr())
		text = strings.Replace(text, "admin off", "admin "+admin, 1)
		m := &member{Process: rig.NewProcess(t, f.dir, strconv.Itoa(i), addr, text), admin: admin}
		f.members = append(f.members, m)
		f.start(m)
	}
	return f
}

func (f *fleet) start(m *member) {
	f.t.Helper()
	if err := m.Start(); err != nil {
		f.t.Fatal(err)
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
	return b.Get("http://"+m.Addr+path, append(header, "Host", host)...)
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

// run runs "caddy x402 …".
func (f *fleet) run(args ...string) rig.Ran {
	f.t.Helper()
	return rig.Command(f.t, f.dir, append([]string{"x402"}, args...)...)
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
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil || r.Code != code {
		f.t.Fatalf("keys %v: code %d, want %d: %v\n%s%s", args, r.Code, code, err, r.Out, r.Err)
	}
	if strings.Contains(r.Out+r.Err, "PRIVATE") {
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
