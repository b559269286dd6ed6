package gateway

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A server that has no wallet has payments of both versions verified and settled, and the same again gets the same answer.
func TestSettles(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open})
	b := rig.NewBuyer(t, 1)
	for i, body := range []string{order(t, b, requirements()), orderV1(t, b, requirements())} {
		network := []string{devnet.Network().ID, devnet.Network().V1Name}[i]
		v := read(t, ask(t, r, b, "verify", body))
		if v.IsValid == nil || !*v.IsValid || v.InvalidReason != "" || v.Payer != b.Account.Address.Hex() {
			t.Fatalf("version %d: verified as %+v", 2-i, v)
		}
		if earned(r) != uint64(i)*cent {
			t.Fatal("asking has moved money")
		}
		a := ask(t, r, b, "settle", body)
		s := read(t, a)
		if a.Status != http.StatusOK || s.Success == nil || !*s.Success || s.ErrorReason != "" || s.Payer != b.Account.Address.Hex() ||
			s.Network != network || len(s.Transaction) != 66 {
			t.Fatalf("version %d: settled as %d %s", 2-i, a.Status, a.Body)
		}
		if again := ask(t, r, b, "settle", body); again.Status != a.Status || again.Body != a.Body {
			t.Errorf("the same again: %d %s", again.Status, again.Body)
		}
		if earned(r) != uint64(i+1)*cent {
			t.Errorf("the shop has %d", earned(r))
		}
		v = read(t, ask(t, r, b, "verify", body))
		if v.IsValid == nil || *v.IsValid || v.InvalidReason != string(x402.ReasonNonceUsed) {
			t.Errorf("version %d: verified afterwards as %+v", 2-i, v)
		}
	}
	list := payments(t, filepath.Join(r.Dir, "ledger.db"))
	if len(list) != 2 {
		t.Fatalf("%d payments in the ledger", len(list))
	}
	for _, p := range list {
		if p.State() != ledger.StateSettled || p.PayTo != shop || p.Binding.Route != "facilitator" || p.Binding.URI != "https://shop.example.com/tea" {
			t.Errorf("%s: %+v", p.State(), p)
		}
	}
	if n := r.Upstream.Calls(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// What is supported is said as the reference says it.
func TestSupported(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open})
	b := rig.NewBuyer(t, 1)
	a := b.Get(r.URL("/facilitator/supported"))
	want := `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},{"x402Version":1,"scheme":"exact","network":"base-sepolia"}],` +
		`"extensions":[],"signers":{"eip155:*":["` + devnet.Developer(0).Address.Hex() + `"]}}`
	if a.Status != http.StatusOK || a.Body != want || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v\n%s\nwant\n%s", a.Status, a.Header, a.Body, want)
	}
	if a := b.Do(t.Context(), http.MethodGet, r.URL("/facilitator/settle"), ""); a.Status != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "POST" {
		t.Errorf("GET /settle: %d %s", a.Status, a.Body)
	}
	if a := b.Get(r.URL("/settle")); a.Status != http.StatusPaymentRequired {
		t.Errorf("outside of its prefix: %d %s", a.Status, a.Body)
	}
}

// It stands at a site's root as well, and behind handle_path, and leaves all other paths to whoever is there.
func TestPlaces(t *testing.T) {
	const block = `{
		keys off
		allow_pay_to 0x5b38da6a701c568545dcfcb03fcb875f56beddc4
	}
	`
	for name, tt := range map[string]struct{ site, prefix string }{
		"root":        {"reverse_proxy {upstream}\nx402 $0.01\nx402_facilitator " + block, ""},
		"matcher":     {"x402 $0.01\nx402_facilitator /x402/v2/* " + block + "reverse_proxy {upstream}", "/x402/v2"},
		"handle_path": {"handle_path /f/* {\nx402_facilitator " + block + "}\nhandle {\nx402 $0.01\nreverse_proxy {upstream}\n}", "/f"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Site: tt.site})
			b := rig.NewBuyer(t, 1)
			a := b.Do(t.Context(), http.MethodPost, r.URL(tt.prefix+"/settle"), order(t, b, requirements()))
			if s := read(t, a); a.Status != http.StatusOK || s.Success == nil || !*s.Success || earned(r) != cent {
				t.Errorf("settled as %d %s", a.Status, a.Body)
			}
			if a := b.Get(r.URL(tt.prefix + "/supported")); a.Status != http.StatusOK || !strings.HasPrefix(a.Body, `{"kinds":`) {
				t.Errorf("supported: %d %s", a.Status, a.Body)
			}
			for _, path := range []string{"/tea", "/settle/", "/x/settle"} {
				if a, _ := b.Buy(r.URL(path)); a.Status != http.StatusOK {
					t.Errorf("the paywall beside it, %s: %d %s", path, a.Status, a.Body)
				}
			}
			if r.Earned() != 3*cent || r.Upstream.Calls() != 3 {
				t.Errorf("the seller has %d, the upstream was asked %d times", r.Earned(), r.Upstream.Calls())
			}
		})
	}
}
