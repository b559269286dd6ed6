package facilitator

import (
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/facilitator/cdp"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	remote "github.com/caddy-x402/caddy-x402/test/facilitator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

// street is a local chain with two endpoints and two facilitators.
type street struct {
	rpc          [2]*settlementtest.Proxy
	facilitators [2]*remote.Server
}

func open(t *testing.T) *street {
	t.Helper()
	c, err := devnet.Start(t.Context(), devnet.Options{Heartbeat: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s := new(street)
	for i := range s.rpc {
		s.rpc[i] = settlementtest.NewProxy(t, c.URL())
		s.facilitators[i] = remote.New(t, c.URL(), devnet.Developer(i).Key)
	}
	return s
}

func in(t *testing.T, rpc ...*settlementtest.Proxy) caddymodule.SettlerContext {
	c := caddymodule.SettlerContext{Network: devnet.Network(), Local: true, Journal: settlementtest.NewJournal(), Ledger: t.Name()}
	for _, p := range rpc {
		c.RPC = append(c.RPC, p.URL())
	}
	return c
}

// provisioned is a module that was provisioned and has joined, for those facilitators.
func provisioned(t *testing.T, c caddymodule.SettlerContext, servers ...*remote.Server) *Facilitator {
	t.Helper()
	f := new(Facilitator)
	for _, s := range servers {
		f.Facilitators = append(f.Facilitators, &Remote{URL: s.URL()})
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := f.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	f.log = slog.New(slog.DiscardHandler)
	if _, err := f.Join(ctx, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { left(t, f) })
	return f
}

func started(t *testing.T, c caddymodule.SettlerContext, servers ...*remote.Server) *Facilitator {
	t.Helper()
	f := provisioned(t, c, servers...)
	if err := f.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return f
}

func left(t *testing.T, f *Facilitator) {
	t.Helper()
	if err := f.Leave(); err != nil {
		t.Error(err)
	}
}

// Provisioning asks nobody: `caddy validate` provisions too. Starting asks the chain, and the facilitators what they support.
func TestProvisioningAsksNobody(t *testing.T) {
	s := open(t)
	c := in(t, s.rpc[0])
	f := provisioned(t, c, s.facilitators[0])
	if s.rpc[0].Requests() != 0 || len(s.facilitators[0].Requests("/supported")) != 0 {
		t.Error("somebody was asked")
	}
	if err := f.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := f.office.Value().Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if s.rpc[0].Count("eth_getCode") != 1 || len(s.facilitators[0].Requests("/supported")) != 1 {
		t.Error("the chain, or the facilitator, was not asked once")
	}
}

// One office serves all configurations of a chain, an asset and a ledger, whatever their facilitators are.
func TestOfficeIsShared(t *testing.T) {
	s := open(t)
	c := in(t, s.rpc[0])
	a := started(t, c, s.facilitators[0])
	if b := started(t, c, s.facilitators[1]); a.office.Value() != b.office.Value() || s.rpc[0].Count("eth_getCode") != 1 {
		t.Error("a reload made another office, or asked again")
	}
	for name, other := range map[string]func(*caddymodule.SettlerContext){
		"another ledger":               func(c *caddymodule.SettlerContext) { c.Ledger += " other" },
		"another token":                func(c *caddymodule.SettlerContext) { c.Network.Asset.Address = devnet.MulticallAddress },
		"another name of the token":    func(c *caddymodule.SettlerContext) { c.Network.Asset.Name = "USD Coin" },
		"another version of the token": func(c *caddymodule.SettlerContext) { c.Network.Asset.Version = "1" },
		"another chain":                func(c *caddymodule.SettlerContext) { c.Network.ChainID++ },
	} {
		d := c
		other(&d)
		if f := provisioned(t, d, s.facilitators[0]); f.office.Value() == a.office.Value() {
			t.Errorf("%s has the same office", name)
		}
	}
}

// Facilitators, endpoints and settings are those of the newest configuration that was started; one that was only provisioned,
// or that goes, changes nothing.
func TestOfficeFollowsTheNewest(t *testing.T) {
	s := open(t)
	a := started(t, in(t, s.rpc[0]), s.facilitators[0])
	o := a.office.Value()
	follows := func(when string, i int) {
		t.Helper()
		before := s.rpc[i].Requests()
		if err := o.Ready(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if s.rpc[i].Requests() == before {
			t.Errorf("%s: another endpoint was asked", when)
		}
	}
	b := provisioned(t, in(t, s.rpc[1]), s.facilitators[1])
	follows("with another one provisioned", 0)
	if len(s.facilitators[1].Requests("/supported")) > 0 {
		t.Error("the facilitator of a configuration that was only provisioned was asked")
	}
	if err := b.Start(t.Context(), in(t, s.rpc[1])); err != nil {
		t.Fatal(err)
	}
	follows("with another one started", 1)
	if len(s.facilitators[1].Requests("/supported")) == 0 {
		t.Error("the facilitator of the new configuration was not asked")
	}
	left(t, b)
	follows("with the first again", 0)
}

// A configuration that the chain contradicts is refused, and leaves the running one at work. A chain that does not answer is
// no reason not to start, but nothing is paid.
func TestOfficeAndItsChain(t *testing.T) {
	s := open(t)
	a := started(t, in(t, s.rpc[0]), s.facilitators[0])
	wrong := in(t, s.rpc[1])
	wrong.Network.Asset.Decimals = 18
	b := provisioned(t, wrong, s.facilitators[0])
	if m, ok := errors.AsType[*chain.MismatchError](b.Start(t.Context(), wrong)); !ok || m.What != "token decimals" {
		t.Errorf("%v", m)
	}
	left(t, b)
	if err := a.office.Value().Ready(t.Context()); err != nil {
		t.Error(err)
	}

	s.rpc[1].FailAll(http.StatusBadGateway)
	before := s.rpc[1].Requests()
	late := in(t, s.rpc[1])
	late.Ledger += " late"
	o := started(t, late, s.facilitators[0]).office.Value()
	for range 10 {
		if _, err := o.Check(t.Context(), settlement.Intent{Network: late.Network}); !errors.Is(err, settlement.ErrUnavailable) {
			t.Fatalf("a chain that nobody has seen takes payments: %v", err)
		}
	}
	if n := s.rpc[1].Requests() - before; n > 3 {
		t.Errorf("a chain that is down was asked %d times", n)
	}
	s.rpc[1].SetFault(nil)
	o.mu.Lock()
	o.asked = time.Time{}
	o.mu.Unlock()
	if err := o.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// What stands for the platform of Coinbase is its address, and credentials are put where they belong.
func TestResolve(t *testing.T) {
	t.Setenv("T_CDP_SECRET", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==")
	t.Setenv("T_TOKEN", "of great value")
	r, err := (&Remote{CDP: &CDP{KeyID: "key-1", KeySecret: "{env.T_CDP_SECRET}"}}).resolve(false)
	if err != nil || r.URL != cdp.URL || r.Authorizer == nil || len(r.Header) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = (&Remote{
		URL: "https://x.example", Bearer: "{env.T_TOKEN}", Headers: map[string]string{"x-one": "1"}, Timeout: caddy.Duration(time.Second), Verify: true,
	}).resolve(false)
	want := http.Header{"Authorization": {"Bearer of great value"}, "X-One": {"1"}}
	if err != nil || !reflect.DeepEqual(r.Header, want) || r.Timeout != time.Second || !r.Verify || r.Authorizer != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// Errors of configurations name the facilitator by its place, never by its address.
func TestJoinErrors(t *testing.T) {
	f := &Facilitator{Facilitators: []*Remote{{URL: "https://x.example"}, {URL: "https://x.example?key=confidential"}}}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	if err := f.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	c := caddymodule.SettlerContext{Network: devnet.Network(), RPC: []string{"http://127.0.0.1:1"}, Journal: settlementtest.NewJournal(), Ledger: t.Name()}
	if _, err := f.Join(ctx, c); err == nil || strings.Contains(err.Error(), "confidential") {
		t.Errorf("%v", err)
	}
	if err := f.Leave(); err != nil {
		t.Error(err)
	}
}
