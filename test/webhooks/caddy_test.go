//go:build interop

package webhooks

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// hooked is a configuration that tells the receiver of everything.
func hooked(r *receiver, secrets string) string {
	return fmt.Sprintf("webhook %s {\n secret %s\n compatibility\n }\n webhooks {\n allow_private\n timeout 3s\n }\n", r.hook(), secrets)
}

const site = `
	x402 $0.01
	x402_service
	reverse_proxy {upstream}
`

// A seller is told what happens to payments, by whom its receiver believes; a reload, a receiver that is down and a new secret lose nothing.
func TestASellerIsTold(t *testing.T) {
	older, newer := webhooks.NewSecret(), webhooks.NewSecret()
	t.Setenv("T_OLDER", older)
	t.Setenv("T_NEWER", newer)
	r := newReceiver(t, older)
	upstream := func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, "/broken") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		rig.Echo(w, q)
	}
	o := rig.Options{Site: site, App: hooked(r, "{env.T_OLDER}"), Upstream: upstream}
	g := rig.New(t, o)
	buyer := rig.NewBuyer(t, 0)

	good, _ := buyer.Buy(g.URL("/good?q=1"))
	if good.Status != http.StatusOK {
		t.Fatalf("%d %s", good.Status, good.Body)
	}
	types := []string{webhooks.TypeSettled, webhooks.TypeDelivered}
	for _, e := range r.await(types...) {
		d := e.Data
		if e.Livemode || e.Network != "eip155:84532" || d.PaymentID != good.Header.Get("X-Payment-Id") || d.Amount != "10000" || d.URI != "/good?q=1" ||
			d.Payer != buyer.Account.Address.Hex() || len(d.Transaction) != 66 || e.Timestamp.IsZero() {
			t.Errorf("%+v", e)
		}
	}

	if bad, _ := buyer.Buy(g.URL("/broken")); bad.Status != http.StatusInternalServerError {
		t.Fatalf("%d %s", bad.Status, bad.Body)
	}
	types = append(types, webhooks.TypeSettled, webhooks.TypeUpstreamFailed, webhooks.TypeRefundPending)
	r.await(types...)

	// The receiver is down, and the configuration changes: the secret is replaced, both sign.
	r.behave(behaviour{Status: http.StatusBadGateway})
	if a, _ := buyer.Buy(g.URL("/later")); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	o.App = hooked(r, "{env.T_NEWER} {env.T_OLDER}")
	g.Load(o)
	r.behave(behaviour{})
	types = append(types, webhooks.TypeSettled, webhooks.TypeDelivered)
	r.await(types...)

	last := &r.all[len(r.all)-1]
	if n := len(strings.Fields(last.Headers["webhook-signature"])); n != 2 {
		t.Errorf("%d signatures", n)
	}
	if compat := last.Headers["x-blockchain0x-signature"]; !strings.HasPrefix(compat, "t="+last.Headers["webhook-timestamp"]+",v1=") {
		t.Errorf("the compatibility header is %q", compat)
	}
	if err := webhooks.VerifyCompat(older, last.header(), []byte(last.Body), time.Now()); err != nil {
		t.Error("the compatibility header:", err)
	}
	leaks(t, g, o, older, newer)
}

// leaks looks for secrets where they must not be.
func leaks(t *testing.T, g *rig.Rig, o rig.Options, secrets ...string) {
	t.Helper()
	config, err := rig.Adapt(g.Caddyfile(o))
	if err != nil {
		t.Fatal(err)
	}
	where := map[string][]byte{"the configuration": config}
	files, err := filepath.Glob(filepath.Join(g.Dir, "ledger.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if where[f], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range secrets {
		for name, b := range where {
			if bytes.Contains(b, []byte(strings.TrimPrefix(s, webhooks.SecretPrefix))) {
				t.Errorf("a secret is in %s", name)
			}
		}
	}
}

// Only what was paid is told as paid: an offer, and a payment that is refused, are nobody's income.
func TestWhatIsNotTold(t *testing.T) {
	secret := webhooks.NewSecret()
	t.Setenv("T_SECRET", secret)
	r := newReceiver(t, secret)
	g := rig.New(t, rig.Options{Site: site, App: fmt.Sprintf("webhook %s {\n secret {env.T_SECRET}\n events payment.settled\n }\n webhooks {\n allow_private\n }\n", r.hook())})
	buyer := rig.NewBuyer(t, 1)
	offer := buyer.Offer(g.URL("/a"))
	wrong := buyer.Sign(offer, 0, func(a *x402.Authorization) { a.Value.SetUint64(1) })
	if a := buyer.Get(g.URL("/a"), x402.HeaderSignature, wrong); a.Status != http.StatusPaymentRequired {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if a, _ := buyer.Buy(g.URL("/a")); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	r.await(webhooks.TypeSettled)
}
