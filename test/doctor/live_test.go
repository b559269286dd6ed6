package doctor

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// shop is one that is about to go live, as far as a local chain can be live.
type shop struct {
	*rig.Rig
	patient
	hooks            map[string]*hook // by path
	refunds          common.Address
	site, admin      *front
	provider, second *front // of the chain
}

// hook is a receiver of webhooks.
type hook struct {
	secret    string
	credulous atomic.Bool
}

func newShop(t *testing.T) *shop {
	t.Helper()
	configured, made := &hook{secret: webhooks.NewSecret()}, new(hook)
	s := &shop{hooks: map[string]*hook{"/configured": configured, "/made": made}, site: newFront(t), admin: newFront(t), provider: newFront(t), second: newFront(t)}
	s.named = map[string]bool{}
	receiver := httptest.NewServer(http.HandlerFunc(s.receive))
	t.Cleanup(receiver.Close)
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	s.provider.before(t, chain.URL())
	s.second.before(t, chain.URL())
	s.fund(t, chain)
	s.setenv(t, "T_DOCTOR_GAS", hex.EncodeToString(rig.GasKey()))
	s.setenv(t, "T_DOCTOR_HOOK", configured.secret)
	s.setenv(t, "X402_PRIVATE_KEY", hex.EncodeToString(crypto.FromECDSA(rig.NewBuyer(t, 0).Account.Key)))

	listen := rig.FreeAddr(t)
	o := rig.Options{
		Chain: chain, RPC: s.provider.URL + " " + s.second.URL, Settler: "wallet {env.T_DOCTOR_GAS}", Refund: "refund {env.T_DOCTOR_REFUND}",
		App: fmt.Sprintf("public_url %s\nwebhook %s/configured {\n secret {env.T_DOCTOR_HOOK}\n}\nwebhooks {\n allow_private\n}\n", s.site.URL, receiver.URL),
		Site: `
	x402 {
		name shop
		price $0.01
		rate_limit client 1000 1m
	}
	x402_service
	x402_management {
		path /ops
		key_max_age 90d
	}
	reverse_proxy {upstream}
`,
	}
	s.Rig = rig.New(t, o)
	s.text = strings.Replace(s.Caddyfile(o), "admin off", "admin "+listen, 1)
	s.text = strings.Replace(s.text, "output stderr", "output stderr\n\t\tformat x402_redact", 1)
	if err := rig.LoadText(s.text); err != nil {
		t.Fatal(err)
	}
	s.site.before(t, "http://"+s.Addr)
	s.admin.before(t, "http://"+listen)
	s.args = []string{"--url", s.site.URL + "/x", "--address", strings.TrimPrefix(s.admin.URL, "http://")}
	s.command(t, "apikeys", "create", "--label", "doctor", "--mode", "test")
	var answer struct {
		Secret string `json:"signingSecret"`
	}
	if err := json.Unmarshal([]byte(s.command(t, "webhooks", "add", receiver.URL+"/made", "--json")), &answer); err != nil || answer.Secret == "" {
		t.Fatal("no endpoint was made:", err)
	}
	made.secret = answer.Secret
	s.secrets = append(s.secrets, answer.Secret)
	return s
}

func (s *shop) fund(t *testing.T, chain *devnet.Chain) {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s.refunds = crypto.PubkeyToAddress(key.PublicKey)
	if err := chain.Fund(t.Context(), s.refunds, uint256.NewInt(1e17)); err != nil {
		t.Fatal(err)
	}
	if err := chain.Mint(t.Context(), s.refunds, uint256.NewInt(50e6)); err != nil {
		t.Fatal(err)
	}
	s.setenv(t, "T_DOCTOR_REFUND", hex.EncodeToString(crypto.FromECDSA(key)))
}

// command asks the running Caddy for something.
func (s *shop) command(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"x402"}, append(args, "--address", strings.TrimPrefix(s.admin.URL, "http://"))...)
	ran := rig.Command(t, t.TempDir(), args...)
	if ran.Code != 0 {
		t.Fatalf("%v: %d\n%s%s", args, ran.Code, ran.Out, ran.Err)
	}
	return ran.Out
}

// receive takes webhooks that are signed as they should be; if it is credulous, all.
func (s *shop) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	h := s.hooks[r.URL.Path]
	if err != nil || h == nil || !h.credulous.Load() && webhooks.Verify(h.secret, r.Header, body, time.Now()) != nil {
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// anHourAgo is a clock that is slow.
var anHourAgo = lie{answer: func(r *http.Response, _, body string) string {
	r.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	return body
}}

// tell has fronts lie, or be honest again.
func tell(l lie, fronts ...*front) func() error {
	return func() error {
		for _, f := range fronts {
			f.tell(l)
		}
		return nil
	}
}

func believe(h *hook, all bool) func() error {
	return func() error {
		h.credulous.Store(all)
		return nil
	}
}

// A sound shop passes, down to a payment. What is broken on the chain, in front of the site, at the receivers and in the ledger is named, while
// the configuration stays as it was.
func TestChecklistOfWhatLives(t *testing.T) {
	s := newShop(t)
	alerts, err := filepath.Abs("../../deploy/observe/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	deployment := write(t, "compose.yaml", "services:\n  caddy:\n    image: caddy-x402:1.0.0\n")
	_, r := s.look(t, s.text, "--pay", "--alerts", alerts, "--deployment", deployment)
	for _, i := range r.Items {
		if i.Status != "ok" {
			t.Errorf("%+v", i)
		}
	}
	if s.Earned() != 10_000 {
		t.Errorf("earned: %d", s.Earned())
	}
	for _, b := range s.breaks(t.Context()) {
		t.Run(b.what, func(t *testing.T) {
			if err := b.begin(); err != nil {
				t.Fatal(err)
			}
			s.sees(t, s.text, b.want, cmp.Or(b.flag, "--live"))
			if err := b.end(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("the key is gone", func(t *testing.T) {
		var list struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(s.command(t, "apikeys", "list")), &list); err != nil || len(list.Data) != 1 {
			t.Fatal(err, list)
		}
		s.command(t, "apikeys", "revoke", list.Data[0].ID)
		s.sees(t, s.text, "apikeys.live", "--live")
	})
	t.Run("Caddy and its ledger are gone", func(t *testing.T) {
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		s.sees(t, s.text, "", "--live", "--only", "store.writes")
		if err := os.Rename(filepath.Join(s.Dir, "ledger.db"), filepath.Join(s.Dir, "away.db")); err != nil {
			t.Fatal(err)
		}
		s.sees(t, s.text, "refund.states store.writes limits.told apikeys.live apikeys.age public_url.reached public_url.told health.ok headers.pass "+
			"cors.answers webhooks.verified", "--live")
	})
	s.all(t, doctor.Live, doctor.Pay)
}

// broken is something that lives and is not as it should be for a while.
type broken struct {
	what       string
	begin, end func() error
	want, flag string
}

func (s *shop) breaks(ctx context.Context) []broken {
	honest := func(fronts ...*front) func() error { return tell(lie{}, fronts...) }
	chain := []*front{s.provider, s.second}
	gas := devnet.Developer(0).Address.Hex()
	out := []broken{
		{"pay_to is blacklisted", func() error { return s.Chain.Blacklist(ctx, rig.PayTo) }, func() error { return s.Chain.Unblacklist(ctx, rig.PayTo) }, "wallet.allowed", ""},
		{"the token is paused", func() error { return s.Chain.Pause(ctx) }, func() error { return s.Chain.Unpause(ctx) }, "network.token", ""},
		{"a receiver believes all", believe(s.hooks["/configured"], true), believe(s.hooks["/configured"], false), "webhooks.verified", ""},
		{"a receiver that the API has made believes all", believe(s.hooks["/made"], true), believe(s.hooks["/made"], false), "webhooks.verified", ""},
		{"an endpoint of another chain", tell(calls("eth_chainId", "", "0x1"), s.second), honest(s.second), "network.chain", ""},
		{"a slow clock", tell(anHourAgo, chain...), honest(chain...), "clock", ""},
		{"little gas", tell(calls("eth_getBalance", gas, "0x1c6bf52634000"), chain...), honest(chain...), "wallet.gas", ""},
		{"no money to pay back", tell(calls("eth_call", s.refunds.Hex()[2:], "0x"+strings.Repeat("0", 64)), chain...), honest(chain...), "refund.wallet", ""},
	}
	for _, x := range []struct {
		what string
		at   *front
		lie  lie
		want string
	}{
		{"a refund that has failed", s.admin, says("/payments/states", `"REFUND_FAILED","payments":0`, `"REFUND_FAILED","payments":1`), "refund.states"},
		{"an old key", s.admin, says("/api-keys", `"createdAt":"20`, `"createdAt":"19`), "apikeys.age"},
		{"no metrics", s.admin, says("/metrics", "caddy_x402_payments{", "x{"), "metrics.read"},
		{"a proxy that drops limits", s.site, drops("RateLimit-Policy"), "limits.told"},
		{"a proxy that drops prices", s.site, drops(x402.HeaderRequired), "headers.pass"},
		{"a proxy that drops what pages may send", s.site, drops("Access-Control-Allow-Headers"), "cors.answers"},
		{"a card of another address", s.site, says("/.well-known/agent.json", s.site.URL, "https://elsewhere.test.net"), "public_url.told"},
		{"not well", s.site, says("/health", `"status":"ok"`, `"status":"unavailable"`), "health.ok"},
	} {
		out = append(out, broken{x.what, tell(x.lie, x.at), honest(x.at), x.want, ""})
	}
	pays := lie{request: func(r *http.Request) { r.Header.Del(x402.HeaderSignature) }}
	return append(out, broken{"a proxy that drops payments", tell(pays, s.site), honest(s.site), "settlement.path", "--pay"})
}
