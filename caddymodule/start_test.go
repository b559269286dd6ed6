package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func load(t *testing.T, text string) error {
	t.Helper()
	adapted, err := rig.Adapt(text)
	if err != nil {
		t.Fatal(err)
	}
	return caddy.Load(adapted, true)
}

// buy buys as a careful client does: a connection that a reload has closed counts as "try again", with the same header.
func buy(t *testing.T, b *rig.Buyer, url string) rig.Answer {
	t.Helper()
	ask := func(header ...string) (a rig.Answer) {
		for range 20 {
			if a = b.Get(url, header...); a.Err == nil {
				break
			}
		}
		return a
	}
	return ask(x402.HeaderSignature, b.Sign(rig.Offered(t, ask()), 0))
}

// A chain that is not the configured one refuses the configuration, in words that say which side says what; the one that
// runs goes on.
func TestMismatchRefusesTheConfiguration(t *testing.T) {
	r := rig.New(t, rig.Options{})
	t.Setenv("T_GAS", gasKey)
	b := rig.NewBuyer(t, 1)
	host := strings.TrimPrefix(r.Chain.URL(), "http://")
	token := devnet.TokenAddress.Hex()
	asset := func(address, name, version, decimals string) string {
		return "asset " + address + " {\nname \"" + name + "\"\nversion " + version + "\ndecimals " + decimals + "\n}"
	}
	for name, tc := range map[string]struct{ app, network, want string }{
		"chain id": {
			app: asset(token, "USDC", "2", "6"), network: "eip155:31337",
			want: "chain id: the configuration says 31337, the endpoint " + host + " says 84532",
		},
		"token name":     {app: asset(token, "USD Coin", "2", "6"), want: `token name: the configuration says "USD Coin", the chain says "USDC"`},
		"token version":  {app: asset(token, "USDC", "1", "6"), want: `token version: the configuration says "1", the chain says "2"`},
		"token decimals": {app: asset(token, "USDC", "2", "18"), want: "token decimals: the configuration says 18, the chain says 6"},
		"no token":       {app: asset(rig.PayTo.Hex(), "USDC", "2", "6"), want: "token: the configuration says " + rig.PayTo.Hex() + ", the chain says that there is no contract at this address"},
		"no such functions": {
			app:  asset(devnet.MulticallAddress.Hex(), "USDC", "2", "6"),
			want: `token name: the configuration says "USDC", the chain says nothing: it has no such function`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := r.Caddyfile(rig.Options{App: tc.app})
			if tc.network != "" {
				text = strings.Replace(text, "network base-sepolia", "network "+tc.network, 1)
				text = regexp.MustCompile(`wallet 0x\w+`).ReplaceAllString(text, "wallet {env.T_GAS}")
			}
			err := load(t, text)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "network eip155:") {
				t.Errorf("error: %v\nwant: %s", err, tc.want)
			}
			if a := buy(t, b, r.URL("/x")); a.Status != http.StatusOK {
				t.Errorf("afterwards a payment is answered %d %s", a.Status, a.Body)
			}
		})
	}
}

// Every endpoint is asked for its chain: one of another must not wait for its turn to do harm. One that does not answer may
// be the second of two.
func TestSecondEndpoint(t *testing.T) {
	r := rig.New(t, rig.Options{})
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var queries []struct {
			ID json.RawMessage `json:"id"`
		}
		body, _ := io.ReadAll(q.Body)
		single := json.Unmarshal(body, &queries) != nil
		if single {
			queries = append(queries[:0], struct {
				ID json.RawMessage `json:"id"`
			}{})
			_ = json.Unmarshal(body, &queries[0])
		}
		var answers []map[string]any
		for _, q := range queries {
			answers = append(answers, map[string]any{"jsonrpc": "2.0", "id": q.ID, "result": "0x1"})
		}
		if single {
			_ = json.NewEncoder(w).Encode(answers[0])
			return
		}
		_ = json.NewEncoder(w).Encode(answers)
	}))
	t.Cleanup(foreign.Close)
	want := "chain id: the configuration says 84532, the endpoint " + strings.TrimPrefix(foreign.URL, "http://") + " says 1"
	if err := load(t, r.Caddyfile(rig.Options{RPC: r.Chain.URL() + " " + foreign.URL})); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error: %v\nwant: %s", err, want)
	}
	if err := load(t, r.Caddyfile(rig.Options{RPC: r.Chain.URL() + " http://" + rig.FreeAddr(t)})); err != nil {
		t.Error(err)
	}
	if a := buy(t, rig.NewBuyer(t, 1), r.URL("/x")); a.Status != http.StatusOK {
		t.Errorf("a payment is answered %d %s", a.Status, a.Body)
	}
}

// A reload that changes nothing of the chain does not ask it again; other endpoints are asked.
func TestReloadAsksTheChainOnce(t *testing.T) {
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	first, second := settlementtest.NewProxy(t, chain.URL()), settlementtest.NewProxy(t, chain.URL())
	t.Cleanup(func() { _ = caddy.Stop() })
	dir, addr := t.TempDir(), rig.FreeAddr(t)
	step := func(name, rpc string, o rig.Options) {
		t.Helper()
		o.RPC = rpc
		if err := load(t, rig.Caddyfile(o, dir, addr, "127.0.0.1:1")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	asked := func(name string, want int) {
		t.Helper()
		if n := first.Count("eth_getCode") + second.Count("eth_getCode"); n != want {
			t.Errorf("after %s, the chain was asked about the token %d times, want %d", name, n, want)
		}
	}
	step("the start", first.URL(), rig.Options{})
	asked("the start", 1)
	// What looks for lost transactions asks too, when it likes, but nothing of this.
	startAsks := func() (n int) {
		for _, method := range []string{"eth_chainId", "eth_getCode", "eth_call"} {
			n += first.Count(method)
		}
		return n
	}
	before := startAsks()
	step("the same again", first.URL(), rig.Options{})
	step("other times", first.URL(), rig.Options{App: "settle_timeout 20s\ninterval 1m"})
	step("another site", first.URL(), rig.Options{Site: "x402 $2\nrespond ok"})
	taken := "\nhttp://192.0.2.1:1 {\nbind 192.0.2.1\nrespond ok\n}\n" // no address of this machine
	if load(t, rig.Caddyfile(rig.Options{RPC: first.URL()}, dir, addr, "127.0.0.1:1")+taken) == nil {
		t.Error("a site that can't listen was accepted")
	}
	if n := startAsks(); n != before {
		t.Errorf("reloads asked the chain %d times what a start asks", n-before)
	}
	step("another endpoint", first.URL()+" "+second.URL(), rig.Options{})
	asked("another endpoint", 2)
	if second.Count("eth_chainId") == 0 {
		t.Error("the other endpoint was not asked for its chain")
	}
	step("the first alone", first.URL(), rig.Options{})
	asked("the first alone", 3)
}

// The address of an endpoint holds a key as a rule: when it fails, neither logs nor answers show it.
func TestFailingEndpointIsNotShown(t *testing.T) {
	t.Setenv("RIG_LOG_LEVEL", "DEBUG")
	proxy := settlementtest.NewProxy(t, "http://"+rig.FreeAddr(t)) // answers 502
	dir, addr, log := t.TempDir(), rig.FreeAddr(t), filepath.Join(t.TempDir(), "caddy.log")
	rpc := "http://" + rig.FreeAddr(t) + "/v2/" + rpcSecret + " " + proxy.URL() + "/v2/" + rpcSecret + " http://me:" + rpcSecret + "@" + rig.FreeAddr(t)
	text := rig.Caddyfile(rig.Options{RPC: rpc}, dir, addr, "127.0.0.1:1")
	text = strings.Replace(text, "output stderr", "output file "+log, 1)
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := load(t, text); err != nil {
		t.Fatal(err)
	}
	b := rig.NewBuyer(t, 1)
	paid, _ := b.Buy("http://" + addr + "/x")
	health := b.Get("http://" + addr + "/health")
	if paid.Status != http.StatusServiceUnavailable || health.Status != http.StatusServiceUnavailable {
		t.Errorf("answers %d and %d", paid.Status, health.Status)
	}
	written, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"the log": string(written), "the answer": paid.Body, "health": health.Body} {
		if strings.Contains(text, rpcSecret) {
			t.Errorf("%s shows the key: %s", name, text)
		}
	}
	if !strings.Contains(string(written), "the chain does not answer; payments are refused until it does") {
		t.Errorf("the log does not say what is wrong: %s", written)
	}
}

// A mistake about the token that nobody could notice, since the chain did not answer, is mended by a reload.
func TestMistakeMendedByAReload(t *testing.T) {
	r := rig.New(t, rig.Options{})
	proxy := settlementtest.NewProxy(t, r.Chain.URL())
	proxy.FailAll(http.StatusBadGateway)
	// A wallet of its own, that the rig's first configuration has not verified.
	text := strings.Replace(r.Caddyfile(rig.Options{RPC: proxy.URL()}), fmt.Sprintf("wallet 0x%x", rig.GasKey()), "wallet {env.T_GAS}", 1)
	t.Setenv("T_GAS", fmt.Sprintf("%x", crypto.FromECDSA(devnet.Developer(3).Key)))
	wrong := strings.Replace(text, "refunds off", "refunds off\nasset "+devnet.TokenAddress.Hex()+" {\nname \"USD Coin\"\nversion 2\n}", 1)
	if err := load(t, wrong); err != nil {
		t.Fatal(err)
	}
	b := rig.NewBuyer(t, 1)
	if a := buy(t, b, r.URL("/x")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("without a chain a payment is answered %d %s", a.Status, a.Body)
	}
	proxy.SetFault(nil)
	if err := load(t, text); err != nil {
		t.Fatal(err)
	}
	if a := buy(t, b, r.URL("/x")); a.Status != http.StatusOK {
		t.Errorf("after the mistake was mended, a payment is answered %d %s", a.Status, a.Body)
	}
}
