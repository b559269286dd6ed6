package limits

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) {
	rig.Main()
	os.Exit(m.Run())
}

const limits = `
		api_keys
		rate_limit key 4 24h
		rate_limit payer 3 24h
		rate_limit refused 5 24h
`

// site sells requests for a cent, and a plan for a dollar, within limits.
func site(limits string) string {
	return `
	x402 {
		name shop
		price $0.01
		plan day $1.00 {
			ttl 24h
		}
` + limits + `
	}
	x402_management {
		path /ops
		rate_limit key 3 24h
		rate_limit refused 2 24h
	}
	header >X-Seen-Key {http.x402.api_key}
	reverse_proxy {upstream}
`
}

// withKeys does something with the API keys in the rig's ledger.
func withKeys(t *testing.T, r *rig.Rig, do func(apikey.Keys) error) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(r.Dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = do(apikey.Keys{Store: store, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err = errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
}

var admin = apikey.Grantor{Actor: "admin", Local: true}

func newKey(t *testing.T, r *rig.Rig, scopes ...apikey.Scope) (id, secret string) {
	t.Helper()
	withKeys(t, r, func(keys apikey.Keys) error {
		k, s, err := keys.Create(t.Context(), admin, apikey.Request{Mode: apikey.Test, Label: "a test", Scopes: scopes})
		id, secret = k.ID, s.Reveal()
		return err
	})
	return id, secret
}

func revoke(t *testing.T, r *rig.Rig, id string) {
	t.Helper()
	withKeys(t, r, func(keys apikey.Keys) error {
		_, err := keys.Revoke(t.Context(), admin, id)
		return err
	})
}

// soon asks until it holds, and reports whether it does: for longer than the busiest machine needs.
func soon(holds func() bool) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// used reports whether the chain has seen an authorization.
func used(t *testing.T, r *rig.Rig, a *x402.Authorization) bool {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), r.Chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const authorizationState = "0xe94a0102"
	data := append(append(common.FromHex(authorizationState), common.LeftPadBytes(a.From[:], 32)...), a.Nonce[:]...)
	to := devnet.TokenAddress
	out, err := client.CallContract(t.Context(), ethereum.CallMsg{To: &to, Data: data}, nil)
	if err != nil || len(out) != 32 {
		t.Fatalf("asking the token: %x, %v", out, err)
	}
	return out[31] == 1
}

// limitedBy checks a 429 of a limit whose window is a day and has just begun.
func limitedBy(t *testing.T, what string, a rig.Answer, by string, q int) {
	t.Helper()
	const day = int(24 * time.Hour / time.Second)
	wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.Err != nil || a.Status != http.StatusTooManyRequests || !strings.Contains(a.Body, `"code":"rate_limit.exceeded"`) {
		t.Errorf("%s: %d %v %s", what, a.Status, a.Err, a.Body)
	}
	if err != nil || wait < day-600 || wait > day {
		t.Errorf("%s: Retry-After is %q", what, a.Header.Get("Retry-After"))
	}
	policy := `"` + by + `";q=` + strconv.Itoa(q) + ";w=86400"
	if got := a.Header.Get("RateLimit-Policy"); got != policy {
		t.Errorf("%s: RateLimit-Policy is %q, want %q", what, got, policy)
	}
	if got := a.Header.Get("RateLimit"); !strings.HasPrefix(got, `"`+by+`";r=0;t=`) {
		t.Errorf("%s: RateLimit is %q", what, got)
	}
}
