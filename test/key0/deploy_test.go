package key0

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/stores"
	"github.com/caddy-x402/caddy-x402/x402"
)

// TestDeployment starts Caddy as who comes from Key0 does: with the files of deploy/key0 as they are, and Key0's own environment. Plans,
// routes, the issuer, the headers of the backend and refunds are then Key0's.
func TestDeployment(t *testing.T) {
	for backend, variable := range map[string]string{"redis": "REDIS_URL", "postgres": "DATABASE_URL"} {
		t.Run(backend, func(t *testing.T) {
			_, url, _ := strings.Cut(stores.All[backend](t, "").Caddyfile, " ")
			d := deploy(t, "STORAGE_BACKEND="+backend, variable+"="+url)
			d.sells(t)
			d.refunds(t)
			for what, secret := range map[string]string{
				"the issuer's secret": issuerSecret, "the backend's secret": proxySecret, "a credential": "credential-1-of-", "the refund wallet's key": refundKey()[2:],
			} {
				if strings.Contains(d.log.String(), secret) {
					t.Errorf("the log tells %s", what)
				}
			}
		})
	}
}

const proxySecret = "s3cret-of-the-backend"

// deployment is a shop that Caddy sells for in a process of its own.
type deployment struct {
	*shop
	log *buffer
}

// buffer is what a process writes.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// deploy starts it, and waits until it is well.
func deploy(t *testing.T, store ...string) *deployment {
	t.Helper()
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	d := &deployment{log: new(buffer), shop: &shop{issuer: newIssuer(t), Rig: &rig.Rig{
		T: t, Chain: chain, Dir: t.TempDir(), Upstream: rig.NewUpstream(t, weather), Addr: rig.FreeAddr(t),
	}}}
	plans := `[{"planId":"basic","unitAmount":"$0.10","description":"Basic {plan}","quota":{"calls":10}}]`
	routes, err := json.Marshal([]map[string]any{
		{"routeId": "status", "method": "GET", "path": "/api/status"},
		{"routeId": "weather-query", "method": "GET", "path": "/api/weather/:city", "unitAmount": "$0.01"},
		{"routeId": "fail", "method": "GET", "path": "/api/fail", "unitAmount": "$0.01"},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "run", "--config", "../../deploy/key0/Caddyfile", "--envfile", "../../deploy/key0/env.example")
	cmd.Env = append(
		append(os.Environ(), store...), envCommand+"=1", "HOME="+d.Dir, "XDG_CONFIG_HOME="+d.Dir, "XDG_DATA_HOME="+d.Dir, "CADDY_ADMIN="+rig.FreeAddr(t),
		"KEY0_NETWORK=testnet", "KEY0_WALLET_ADDRESS="+rig.PayTo.Hex(), "RPC_URL_OVERRIDE="+chain.URL(), "AGENT_URL=http://"+d.Addr,
		fmt.Sprintf("GAS_WALLET_PRIVATE_KEY=0x%x", rig.GasKey()), "KEY0_WALLET_PRIVATE_KEY="+refundKey(), "AGENT_NAME=Weather Agent",
		"ISSUE_TOKEN_API="+d.issuer.URL+"/internal/issue-token", "ISSUE_TOKEN_API_SECRET="+issuerSecret, "TOKEN_ISSUE_TIMEOUT_MS=2000", "TOKEN_ISSUE_RETRIES=1",
		"PLANS="+plans, "ROUTES="+string(routes), "PROXY_TO_BASE_URL=http://"+d.Upstream.Addr(), "KEY0_PROXY_SECRET="+proxySecret,
		"REFUND_INTERVAL_MS=1000", "REFUND_MIN_AGE_MS=6000", "REFUND_BATCH_SIZE=5",
	)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Error("Caddy did not end")
			<-ended
		}
		if t.Failed() {
			t.Log(d.log.String())
		}
	})
	eventually(t, "Caddy to be well", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Caddy has ended: %v", err)
		default:
		}
		return rig.NewBuyer(t, 0).Get(d.URL("/health")).Status == http.StatusOK
	})
	return d
}

// sells checks that the catalogue is Key0's, and what the issuer and the backend are told.
func (d *deployment) sells(t *testing.T) {
	b := d.payer(t)
	got := decode[discovered](t, b.Get(d.URL("/discover")))
	if got.AgentName != "Weather Agent" || len(got.Plans) != 1 || got.Plans[0].PlanID != "basic" || got.Plans[0].UnitAmount != "$0.10" || len(got.Routes) != 3 {
		t.Errorf("it sells %+v", got)
	}
	g, _ := d.wantGrant(t, b, body{"planId": "basic", "requestId": name()})
	asked := d.issuer.questions()
	if len(asked) != 1 || asked[0].proof != "Bearer "+issuerSecret || !strings.HasPrefix(g.AccessToken, "credential-1-of-") {
		t.Fatalf("%+v is issued, after %+v", g, asked)
	}
	quota, _ := asked[0].body["quota"].(map[string]any)
	if q := asked[0].body; q["planId"] != "basic" || q["txHash"] != g.TxHash || q["description"] != "Basic {plan}" || quota["calls"] != 10.0 {
		t.Errorf("the issuer is told %v", q)
	}
	told := func(what string) http.Header {
		h := d.Upstream.Last().Header
		if h.Get("X-Key0-Internal-Token") != proxySecret || h.Get("X-Key0-Payer") != b.Account.Address.Hex() || len(h.Get("X-Key0-Tx-Hash")) != 66 || h["X-Key0-Amount"] != nil {
			t.Errorf("of %s the backend is told %v", what, h)
		}
		return h
	}
	forged := []string{"X-Key0-Payer", "0xforged", "X-Key0-Amount", "$100", "X-Key0-Tx-Hash", "0xforged", "X-Key0-Internal-Token", "forged", "X-Key0-Plan-Id", "forged"}
	a := b.Get(d.URL("/api/weather/oslo"), append(forged, "Authorization", "Bearer "+g.AccessToken)...)
	if h := told("a plan"); a.Status != http.StatusOK || h.Get("X-Key0-Plan-Id") != "basic" {
		t.Errorf("with the credential: %d %s, the backend is told %v", a.Status, a.Body, h)
	}
	b = d.payer(t)
	a = b.Get(d.URL("/api/weather/oslo"), append(forged, x402.HeaderSignature, b.Sign(b.Offer(d.URL("/api/weather/oslo")), 0))...)
	if h := told("a route"); a.Status != http.StatusOK || h.Get("X-Key0-Plan-Id") != "" {
		t.Errorf("a route: %d %s, the backend is told %v", a.Status, a.Body, h)
	}
	if r, _ := d.wantResource(t, b, body{"routeId": "weather-query", "resource": call("GET", "/api/weather/lima")}); !strings.Contains(string(r.Resource.Body), "lima") {
		t.Errorf("a route by its id: %s", r.Resource.Body)
	}
	if a := b.Get(d.URL("/api/status"), forged...); a.Status != http.StatusOK || d.Upstream.Last().Header.Get("X-Key0-Payer") == "0xforged" {
		t.Errorf("the free route: %d %s, the backend is told %v", a.Status, a.Body, d.Upstream.Last().Header)
	}
}

// refunds checks that what failed goes back, by Key0's settings.
func (d *deployment) refunds(t *testing.T) {
	if err := d.Chain.Mint(t.Context(), refundWallet.Address, uint256.NewInt(weatherPrice)); err != nil {
		t.Fatal(err)
	}
	b := d.payer(t)
	had := d.Balance(b.Account.Address).Uint64()
	a, _ := b.Buy(d.URL("/api/fail"))
	if a.Status != http.StatusInternalServerError || a.Header.Get("X-Payment-Status") != "refund_pending" {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	eventually(t, "its payer to have it back", func() bool { return d.Balance(b.Account.Address).Uint64() == had })
}
