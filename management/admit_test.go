package management_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The sixth item of the going-live checklist. Every key with every header against every lock: who one is comes first (401), then the header (400), then the key's network (401), then the
// instance's (403), then the scope (403).
func TestChecklist6XNetwork(t *testing.T) {
	const (
		missing, keyInvalid = "401 auth.missing_token", "401 apikey.invalid"
		expired, revoked    = "401 apikey.expired", "401 apikey.revoked"
		required, invalid   = "400 network.header_required", "400 network.invalid"
		mismatch, locked    = "401 apikey.network_mismatch", "403 network_locked"
		scope, ok           = "403 apikey.scope_insufficient", "200 "
	)
	locks := map[string][]x402.Network{"both": {base, sepolia}, "mainnet": {base}, "testnet": {sepolia}}
	lockNames := []string{"both", "mainnet", "testnet"}
	headers := []struct {
		name   string
		values []string
	}{
		{"none", nil},
		{"empty", []string{""}},
		{"mainnet", []string{"mainnet"}},
		{"testnet", []string{"testnet"}},
		{"Mainnet", []string{"Mainnet"}},
		{"a list", []string{"mainnet, testnet"}},
		{"twice", []string{"mainnet", "mainnet"}},
		{"eip155:8453", []string{"eip155:8453"}},
	}
	everywhere := func(code string) [8][3]string {
		var out [8][3]string
		for i := range out {
			out[i] = [3]string{code, code, code}
		}
		return out
	}
	same := func(code string) [3]string { return [3]string{code, code, code} }
	// By header, in the order above; and in each by lock.
	known := func(mainnet, testnet [3]string) [8][3]string {
		return [8][3]string{
			same(required), same(required), mainnet, testnet, same(invalid), same(invalid), same(invalid), same(invalid),
		}
	}
	want := map[string][8][3]string{
		"no key":                  everywhere(missing),
		"another scheme":          everywhere(missing),
		"two keys":                everywhere(missing),
		"not a key":               everywhere(keyInvalid),
		"the prefix alone":        everywhere(keyInvalid),
		"an unknown key":          everywhere(keyInvalid),
		"an expired live key":     everywhere(expired),
		"a revoked test key":      everywhere(revoked),
		"a live key":              known([3]string{ok, ok, locked}, same(mismatch)),
		"a test key":              known(same(mismatch), [3]string{ok, locked, ok}),
		"a live key without read": known([3]string{scope, scope, locked}, same(mismatch)),
		"a test key without read": known(same(mismatch), [3]string{scope, locked, scope}),
	}
	o := newOffice(t)
	_, ended := o.key(apikey.Live, time.Minute)
	o.pass(2 * time.Minute)
	gone, goneSecret := o.key(apikey.Test, 0)
	if a := ask(t, o.local, http.MethodDelete, "/x402/v1/api-keys/"+gone.ID, ""); a.status != http.StatusNoContent {
		t.Fatalf("revoking: %d %s", a.status, a.body)
	}
	_, live := o.key(apikey.Live, 0)
	_, test := o.key(apikey.Test, 0)
	_, liveOther := o.key(apikey.Live, 0, apikey.Access, apikey.KeysManage)
	_, testOther := o.key(apikey.Test, 0, apikey.Access, apikey.KeysManage)
	_, unknown := newOffice(t).key(apikey.Live, 0)
	authorization := map[string][]string{
		"no key": nil, "another scheme": {"Basic " + live}, "two keys": {"Bearer " + live, "Bearer " + test}, "not a key": {"Bearer sk_live_x"},
		"the prefix alone": {"Bearer " + live[:14]}, "an unknown key": {"Bearer " + unknown}, "an expired live key": {"Bearer " + ended},
		"a revoked test key": {"Bearer " + goneSecret}, "a live key": {"Bearer " + live}, "a test key": {"bearer " + test},
		"a live key without read": {"Bearer " + liveOther}, "a test key without read": {"Bearer " + testOther},
	}
	for who, rows := range want {
		for i, header := range headers {
			for j, lock := range lockNames {
				o.shop.Networks = locks[lock]
				var sent []string
				for _, v := range authorization[who] {
					sent = append(sent, "Authorization", v)
				}
				for _, v := range header.values {
					sent = append(sent, "X-Network", v)
				}
				a := ask(t, o.remote, http.MethodGet, "/v1/payments", "", sent...)
				if got := statusAndCode(a); got != rows[i][j] {
					t.Errorf("%s, X-Network %s, an instance for %s: %s, want %s", who, header.name, lock, got, rows[i][j])
				}
				if a.status == http.StatusUnauthorized && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
					t.Errorf("%s: 401 without WWW-Authenticate", who)
				}
				if a.status == http.StatusOK && a.header.Get("X-Network") != header.values[0] {
					t.Errorf("%s: X-Network is not echoed but %q", who, a.header.Get("X-Network"))
				}
			}
		}
	}
}

func statusAndCode(a answer) string { return strconv.Itoa(a.status) + " " + a.code() }

// Who sits at the machine needs no key and no header; a header that is there is judged all the same.
func TestLocalCallers(t *testing.T) {
	o := newOffice(t)
	o.shop.Networks = []x402.Network{base}
	for header, want := range map[string]string{"": "200 ", "mainnet": "200 ", "testnet": "403 network_locked", "moon": "400 network.invalid"} {
		if got := statusAndCode(ask(t, o.local, http.MethodGet, "/x402/v1/payments", "", "X-Network", header)); got != want {
			t.Errorf("X-Network %q: %s, want %s", header, got, want)
		}
	}
	// A page of another site, open in a browser on the machine, is not its owner.
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		a := ask(t, o.local, http.MethodPost, "/x402/v1/api-keys", `{"label":"x","scopes":["access"],"mode":"live"}`, append(headers, "Idempotency-Key", "k")...)
		if statusAndCode(a) != "403 auth.cross_origin" {
			t.Errorf("%v: %d %s", headers, a.status, a.body)
		}
	}
}

// Each operation needs its scope, and no other opens it: the table is that of the document that is served.
func TestScopes(t *testing.T) {
	o := newOffice(t)
	secrets := map[string]string{}
	for _, s := range apikey.Scopes() {
		_, secrets[string(s)] = o.key(apikey.Live, 0, s)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Scope string `json:"x-x402-scope"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(o.remote.Spec(), &doc); err != nil {
		t.Fatal(err)
	}
	operations := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			operations++
			path := strings.ReplaceAll(path, "{id}", "pay_aanobody")
			for scope, secret := range secrets {
				a := o.live(secret, strings.ToUpper(method), path, "", "Idempotency-Key", path+method+scope)
				refused := a.code() == management.CodeKeyScope
				if allowed := op.Scope == "" || op.Scope == scope; refused == allowed || refused && a.status != http.StatusForbidden {
					t.Errorf("%s %s needs %s; with %s it is answered %d %s", method, path, op.Scope, scope, a.status, a.body)
				}
			}
		}
	}
	if operations < 18 {
		t.Errorf("there are only %d operations", operations)
	}
}

// A ledger that is away lets nobody in, and says so; a caller without a key hears nothing of it.
func TestLedgerAway(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	o.away.Store(true)
	if a := o.live(live, http.MethodGet, "/v1/payments", ""); statusAndCode(a) != "503 internal.unavailable" || a.header.Get("Retry-After") != "1" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := ask(t, o.remote, http.MethodGet, "/v1/payments", ""); statusAndCode(a) != "401 auth.missing_token" {
		t.Errorf("%d %s", a.status, a.body)
	}
	o.away.Store(false)
	if err := o.store.Close(); err != nil {
		t.Fatal(err)
	}
	if a := o.live(live, http.MethodGet, "/v1/payments", ""); statusAndCode(a) != "503 internal.unavailable" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if strings.Contains(o.log.String(), live) {
		t.Error("the log has a key")
	}
}
