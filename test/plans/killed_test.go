package plans

import (
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/stores"
	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	passRequests = 1000
	passClients  = 64
)

// host is what clients call the site by, whichever instance they reach.
const host = "shop.test"

// Many clients use one counted pass at once over several instances, which are killed now and then: never more is served than was
// sold, and no less than that without what the killed ones held.
func TestCountedPassOverKilledInstances(t *testing.T) {
	for name, begin := range stores.All {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			overKilledInstances(t, dir, begin(t, dir))
		})
	}
}

func overKilledInstances(t *testing.T, dir string, store stores.Store) {
	chain, err := devnet.Start(t.Context(), devnet.Options{Payers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	var calls atomic.Int64
	up := rig.NewUpstream(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	p := &party{t: t, calls: &calls}
	for range 3 {
		p.instances = append(p.instances, newInstance(t, dir, store, chain.URL(), up.Addr()))
	}
	p.buy()
	p.use()

	s, err := store.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var pass []ledger.Allowance
	if err := s.EachAllowance(t.Context(), func(a ledger.Allowance) error { pass = append(pass, a); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(pass) != 1 || !pass[0].Used.Eq(&pass[0].Limit) || pass[0].Limit.Uint64() != passRequests {
		t.Errorf("the ledger says %+v", pass)
	}
	served := calls.Load()
	t.Logf("%d requests were served of %d; %d at most could be lost with %d instances", served, passRequests, p.lost, p.kills)
	if served > passRequests || served < passRequests-p.lost || p.kills < 3 {
		t.Errorf("%d requests were served of %d; %d could be lost with %d instances", served, passRequests, p.lost, p.kills)
	}
}

func newInstance(t *testing.T, dir string, store stores.Store, rpc, upstream string) *rig.Process {
	addr := rig.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	i := rig.NewProcess(t, t.TempDir(), "caddy", addr, rig.Caddyfile(rig.Options{
		RPC: rpc, Store: store.Caddyfile, App: "public_url http://" + host,
		Site: "x402 /* {\n plan thousand $0.10 {\n requests " + strconv.Itoa(passRequests) + "\n}\n}\n reverse_proxy {upstream}",
	}, dir, host+":"+port, upstream))
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	return i
}

// party is all who use one pass.
type party struct {
	t         *testing.T
	instances []*rig.Process
	calls     *atomic.Int64
	token     string
	kills     int
	lost      int64 // at most
}

func (p *party) buy() {
	b := rig.NewBuyer(p.t, 1)
	url := "http://" + p.instances[0].Addr + "/x"
	offer := rig.Offered(p.t, b.Get(url, "Host", host))
	a := b.Get(url, "Host", host, x402.HeaderSignature, b.Sign(offer, 0))
	if p.token = a.Header.Get("X-Access-Token"); a.Status != http.StatusOK || p.token == "" {
		p.t.Fatalf("buying: %d %v %s", a.Status, a.Err, a.Body)
	}
}

// use uses the pass up, while instances are killed.
func (p *party) use() {
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for n := range passClients {
		wg.Go(func() { p.client(n) })
	}
	killer := make(chan struct{})
	go func() {
		defer close(killer)
		for k, at := range []int64{150, 400, 700} {
			for p.calls.Load() < at {
				select {
				case <-ended:
					return
				case <-time.After(time.Millisecond):
				}
			}
			i := p.instances[k%len(p.instances)]
			i.Kill()
			// Its lease, and what it had taken for requests that did not come through.
			p.lost += (passRequests-at)/16 + passClients
			p.kills++
			if err := i.Start(); err != nil {
				p.t.Error(err)
			}
		}
	}()
	wg.Wait()
	close(ended)
	<-killer
}

// client asks one instance after the other, until two of them say that the pass is used up.
func (p *party) client(n int) {
	b := rig.NewBuyer(p.t, n)
	refusals := 0
	for deadline := time.Now().Add(90 * time.Second); refusals < 2; {
		if time.Now().After(deadline) {
			p.t.Error("the pass is never used up")
			return
		}
		i := p.instances[rand.IntN(len(p.instances))]
		a := b.Get("http://"+i.Addr+"/x", "Host", host, "Authorization", "Bearer "+p.token)
		switch {
		case a.Err != nil:
			time.Sleep(20 * time.Millisecond)
		case a.Status == http.StatusOK:
		case a.Status == http.StatusPaymentRequired:
			if o := rig.Offered(p.t, a); o.Error != "plan_used_up" {
				p.t.Errorf("the 402 says %q", o.Error)
			}
			refusals++
		case a.Status != http.StatusServiceUnavailable:
			p.t.Errorf("%d %s", a.Status, a.Body)
		}
	}
}
