package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// variants are configurations that a reload may lead to; the odd ones are refused.
func variants(r *rig.Rig) []string {
	good := r.Caddyfile(rig.Options{App: "settle_timeout 20s"})
	other := r.Caddyfile(rig.Options{App: "settle_timeout 21s\n max_timeout 90s"})
	// Refused while provisioning, after ours was provisioned; and while starting: the address is taken.
	provision := strings.Replace(good, "reverse_proxy", "tls /nowhere.pem /nowhere.key\n reverse_proxy", 1)
	wrongChain := strings.Replace(good, "network base-sepolia", "network base", 1)
	start := good + "\nhttp://192.0.2.1:1 {\n bind 192.0.2.1\n respond ok\n}\n"
	return []string{other, provision, good, wrongChain, other, start, good}
}

// Ten reloads a second, failing ones among them, while payments are in flight: each is answered, none is lost and none is
// made twice.
func TestReloadsUnderLoad(t *testing.T) {
	r := rig.New(t, rig.Options{BlockTime: 500 * time.Millisecond, App: "settle_timeout 20s"})
	configs := variants(r)
	stop := make(chan struct{})
	var reloads, refused int
	var reloading sync.WaitGroup
	reloading.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			reloads++
			if rig.LoadText(configs[i%len(configs)]) != nil {
				refused++
			}
		}
	})

	const payers, each = 16, 6
	var served, bad atomic.Int64
	var paying sync.WaitGroup
	for i := range payers {
		b := rig.NewBuyer(t, i)
		paying.Go(func() {
			for n := range each {
				a := insist(t, b, r.URL(fmt.Sprintf("/load/%d/%d", i, n)))
				if a.Status == http.StatusOK {
					served.Add(1)
				} else {
					bad.Add(1)
					t.Errorf("payer %d, request %d: %d %v %s", i, n, a.Status, a.Err, a.Body)
				}
			}
		})
	}
	paying.Wait()
	close(stop)
	reloading.Wait()
	if reloads < 20 || refused < reloads/4 {
		t.Errorf("%d reloads, %d of them refused: too few to show anything", reloads, refused)
	}
	t.Logf("%d reloads, %d of them refused; %d requests served", reloads, refused, served.Load())
	if r.Upstream.Calls() != payers*each || r.Earned() != payers*each*cent {
		t.Errorf("upstream calls %d, earned %d, want %d", r.Upstream.Calls(), r.Earned(), payers*each)
	}
}

// insist buys as a careful client does: it signs once, and sends the same header until it is told something else. A
// connection that a reload closed counts as "try again".
func insist(t *testing.T, b *rig.Buyer, url string) rig.Answer {
	ask := func(header ...string) (a rig.Answer) {
		for range 100 {
			if a = b.Get(url, header...); a.Err == nil && a.Status != http.StatusServiceUnavailable {
				break
			}
		}
		return a
	}
	return ask(x402.HeaderSignature, b.Sign(rig.Offered(t, ask()), 0))
}

// A reload that is refused leaves the running configuration whole: the same ledger, the same wallet, the same keys.
func TestRefusedReloadChangesNothing(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	first, header := b.Buy(r.URL("/before"))
	if first.Status != http.StatusOK {
		t.Fatal(first.Status, first.Body)
	}
	keys := b.Get(r.URL("/.well-known/jwks.json")).Body
	for i, text := range variants(r) {
		if err := rig.LoadText(text); err != nil && i%2 == 0 {
			t.Errorf("variant %d: %v", i, err)
		} else if err == nil && i%2 == 1 {
			t.Errorf("variant %d was not refused", i)
		}
		if a := b.Get(r.URL("/before"), x402.HeaderSignature, header); a.Status != http.StatusPaymentRequired {
			t.Errorf("after variant %d, a replay: %d", i, a.Status)
		}
		if a, _ := b.Buy(r.URL("/after")); a.Status != http.StatusOK {
			t.Errorf("after variant %d, a purchase: %d %s", i, a.Status, a.Body)
		}
		if got := b.Get(r.URL("/.well-known/jwks.json")).Body; got != keys {
			t.Errorf("after variant %d, the keys are others", i)
		}
	}
	if want := uint64(1+len(variants(r))) * cent; r.Earned() != want {
		t.Errorf("earned %d, want %d", r.Earned(), want)
	}
}

// `caddy validate` beside a running instance passes, and takes nothing from it.
func TestValidateBesideARunningInstance(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	if a, _ := b.Buy(r.URL("/x")); a.Status != http.StatusOK {
		t.Fatal(a.Status, a.Body)
	}
	config, err := rig.Adapt(r.Caddyfile(rig.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	// In another process, as users do it.
	bin := filepath.Join(t.TempDir(), "caddy")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/caddy").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	validate := exec.Command(bin, "validate", "--config", "-")
	validate.Stdin = strings.NewReader(string(config))
	if out, err := validate.CombinedOutput(); err != nil {
		t.Errorf("caddy validate: %v\n%s", err, out)
	}
	// And in this one.
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&cfg); err != nil {
		t.Error(err)
	}
	if a, _ := b.Buy(r.URL("/y")); a.Status != http.StatusOK || r.Earned() != 2*cent {
		t.Errorf("afterwards: %d %s, earned %d", a.Status, a.Body, r.Earned())
	}
}
