package management

import (
	"crypto/rand"
	"encoding/csv"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/stores"
)

type (
	payment struct {
		ID, State, Plan, Payer, Network string
		Trail                           []struct{ Event, Actor string }
	}
	list[T any] struct {
		Data []T
		Page struct{ Next string }
	}
	envelope struct {
		Error struct{ Code, RequestID string }
	}
)

// From the first key, which the command line makes over the machine's own endpoint, to everything that is done with payments.
func TestManagementFromTheFirstKey(t *testing.T) {
	for name, begin := range stores.All {
		t.Run(name, func(t *testing.T) {
			store := begin(t, t.TempDir()).Caddyfile
			fromTheFirstKey(t, name, newOffice(t, func(o *rig.Options) { o.Store = store }))
		})
	}
}

func fromTheFirstKey(t *testing.T, store string, o *office) {
	o.sell()
	code, out, errOut := o.command("create", "--label", "me", "--mode", "test", "--json")
	me := decode[apiKey](t, out)
	o.secrets = append(o.secrets, me.Secret)
	if code != 0 || !strings.HasPrefix(me.Secret, "sk_test_") || len(me.Scopes) != 4 || !strings.Contains(errOut, o.admin) {
		t.Fatalf("code %d: %s%s", code, out, errOut)
	}
	var all list[payment]
	soon(func() bool { // one is settled by the reconciler's next round
		all = decode[list[payment]](t, o.ops(me.Secret, http.MethodGet, "/v1/payments", "").Body)
		return len(all.Data) == 3 && !slices.ContainsFunc(all.Data, func(p payment) bool { return p.State == "PAID" || p.State == "SETTLING" })
	})
	var states []string
	for _, p := range all.Data {
		states = append(states, p.State+" "+p.Plan)
	}
	if want := []string{"DELIVERED day", "REFUND_PENDING ", "DELIVERED "}; !slices.Equal(states, want) {
		t.Fatalf("the payments are %q, want %q", states, want)
	}
	plan := all.Data[0]
	shown := decode[payment](t, o.ops(me.Secret, http.MethodGet, "/v1/payments/"+plan.ID, "").Body)
	if shown.Network != "eip155:84532" || len(shown.Trail) < 5 {
		t.Errorf("%+v", shown)
	}
	table, err := csv.NewReader(strings.NewReader(o.ops(me.Secret, http.MethodGet, "/v1/payments/export", "").Body)).ReadAll()
	if err != nil || len(table) != 4 || table[1][0] != plan.ID {
		t.Errorf("the export: %v %v", table, err)
	}
	if a := o.ops(me.Secret, http.MethodPost, "/v1/tokens/"+plan.ID+"/revoke", ""); a.Status != http.StatusOK {
		t.Errorf("revoking a token: %d %s", a.Status, a.Body)
	}
	for path, want := range map[string]string{
		"/v1/payments/states": `"state":"DELIVERED","payments":2`, "/v1/plans": `"name":"day"`, "/v1/tokens": `"status":"revoked"`, "/v1/refunds/plan": `"reason":"refunds_off"`,
		"/v1/wallets": `"role":"gas"`, "/v1/settings": `"store":"` + store + `"`, "/v1/audit": `"operation":"revokeToken","target":"` + plan.ID + `"`,
		"/v1/refunds?status=pending": `"state":"REFUND_PENDING"`, "/openapi.json": `"openapi":"3.1.0"`, "/docs": "<!doctype html>",
	} {
		if a := o.ops(me.Secret, http.MethodGet, path, ""); a.Status != http.StatusOK || !strings.Contains(a.Body, want) {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	wallets := decode[list[struct {
		Role, GasWei, Balance string
		NextNonce             *uint64
		InFlight              *int
	}]](t, o.ops(me.Secret, http.MethodGet, "/v1/wallets", "").Body)
	if w := wallets.Data; len(w) != 2 || w[0].NextNonce == nil || w[0].GasWei == "" || w[0].InFlight == nil || w[1].Role != "pay_to" || w[1].Balance != "1020000" {
		t.Errorf("wallets: %+v", w)
	}
	// The paywall is still there, and what is below /ops and not the API's is the shop's.
	if a := rig.NewBuyer(t, 1).Get(o.URL("/ops/weather")); a.Status != http.StatusPaymentRequired {
		t.Errorf("beside the API: %d", a.Status)
	}
	o.leaks()
}

// Keys are rotated and revoked on the command line, which says how it ended in its exit code.
func TestManagementKeyCommands(t *testing.T) {
	o := newOffice(t)
	k := o.key("--scopes", "payments:read", "--expires", "90d")
	read := func(secret string) string {
		t.Helper()
		a := o.ops(secret, http.MethodGet, "/v1/payments", "")
		if a.Status == http.StatusOK {
			return "ok"
		}
		return decode[envelope](t, a.Body).Error.Code
	}
	code, out, errOut := o.command("rotate", k.ID, "--overlap", "1h", "--json")
	turned := decode[struct{ Predecessor, Successor apiKey }](t, out)
	o.secrets = append(o.secrets, turned.Successor.Secret)
	if code != 0 || turned.Predecessor.Status != "rotating" || read(k.Secret) != "ok" || read(turned.Successor.Secret) != "ok" {
		t.Errorf("code %d: %s%s; %s, %s", code, out, errOut, read(k.Secret), read(turned.Successor.Secret))
	}
	if a := o.ops(k.Secret, http.MethodGet, "/v1/payments", ""); a.Header.Get("X-Api-Key-Successor") != turned.Successor.ID {
		t.Errorf("the old key is told %v", a.Header)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"rotated already":           {[]string{"rotate", k.ID, "--json"}, 2, "apikey.rotation_in_progress"},
		"nobody":                    {[]string{"rotate", "ak_nobody", "--json"}, 3, "apikey.not_found"},
		"no id":                     {[]string{"revoke", "../payments"}, 3, "apikey.not_found"},
		"no label":                  {[]string{"create"}, 2, "--label"},
		"no such scope":             {[]string{"create", "--label", "x", "--scopes", "root", "--json"}, 2, "request.invalid"},
		"no such mode":              {[]string{"create", "--label", "x", "--mode", "both", "--json"}, 2, "request.invalid"},
		"no duration":               {[]string{"create", "--label", "x", "--expires", "soon"}, 2, "--expires"},
		"two overlaps":              {[]string{"rotate", k.ID, "--leaked", "--overlap", "1h"}, 2, "--leaked"},
		"a Caddy that is not there": {[]string{"list", "--address", rig.FreeAddr(t)}, 4, "no Caddy answers"},
	} {
		if code, out, errOut := o.command(tc.args...); code != tc.code || !strings.Contains(out+errOut, tc.says) {
			t.Errorf("%s: code %d: %s%s", name, code, out, errOut)
		}
	}
	// Into a pipe goes the secret alone, and nothing where there is none.
	if code, out, errOut = o.command("rotate", "ak_nobody"); code != 3 || out != "" {
		t.Errorf("code %d, and on the standard output %q: %s", code, out, errOut)
	}
	code, out, errOut = o.command("rotate", turned.Successor.ID, "--leaked")
	last := apiKey{Secret: strings.TrimSuffix(out, "\n")}
	_, last.ID, _ = strings.Cut(errOut, " key ")
	last.ID, _, _ = strings.Cut(last.ID, " ")
	o.secrets = append(o.secrets, last.Secret)
	if code != 0 || read(turned.Successor.Secret) != "apikey.expired" || read(last.Secret) != "ok" {
		t.Errorf("leaked: code %d: %s", code, errOut)
	}
	if code, _, errOut = o.command("revoke", last.ID); code != 0 || read(last.Secret) != "apikey.revoked" {
		t.Errorf("revoked: code %d: %s", code, errOut)
	}
	_, out, _ = o.command("list")
	keys := decode[list[apiKey]](t, out).Data
	var status []string
	for _, k := range keys {
		status = append(status, k.Status)
	}
	slices.Sort(status)
	if want := []string{"expired", "revoked", "rotating"}; !slices.Equal(status, want) || strings.Contains(out, "secret") {
		t.Errorf("listed: %q, want %q in %s", status, want, out)
	}
	// A live key is for mainnets, of which this Caddy has none.
	live := o.key("--mode", "live")
	a := rig.NewBuyer(t, 1).Do(t.Context(), http.MethodGet, o.URL("/ops/v1/payments"), "", "Authorization", "Bearer "+live.Secret, "X-Network", "mainnet")
	if e := decode[envelope](t, a.Body); a.Status != http.StatusForbidden || e.Error.Code != "network_locked" || e.Error.RequestID != a.Header.Get("X-Request-Id") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	// What was made is still there after a reload.
	o.reload()
	if read(k.Secret) != "ok" || read(last.Secret) != "apikey.revoked" {
		t.Errorf("after a reload: %s, %s", read(k.Secret), read(last.Secret))
	}
	o.leaks()
}

// 50 calls with one Idempotency-Key, over the real store, make one key; the others wait for it, or are told of it without its secret.
func TestManagementOnce(t *testing.T) {
	o := newOffice(t)
	me := o.key("--scopes", "keys:manage,access")
	call := func() rig.Answer {
		return o.ops(me.Secret, http.MethodPost, "/v1/api-keys", `{"label":"one of many","scopes":["access"]}`, "Idempotency-Key", "one")
	}
	answers := make([]rig.Answer, 50)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = call() })
	}
	wg.Wait()
	made := map[string]bool{}
	for _, a := range answers {
		switch k := decode[apiKey](t, a.Body); {
		case a.Status == http.StatusCreated && k.Secret != "":
			o.secrets = append(o.secrets, k.Secret)
			made[k.ID] = true
		case a.Status == http.StatusCreated && a.Header.Get("Idempotency-Replayed") != "true":
			t.Errorf("%v %s", a.Header, a.Body)
		case a.Status != http.StatusCreated && decode[envelope](t, a.Body).Error.Code != "idempotency.in_progress":
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	replayed := decode[apiKey](t, call().Body)
	keys := decode[list[apiKey]](t, o.ops(me.Secret, http.MethodGet, "/v1/api-keys", "").Body).Data
	if len(made) != 1 || !made[replayed.ID] || replayed.Secret != "" || len(keys) != 2 || len(o.secrets) != 2 {
		t.Errorf("%d keys were made, %d are listed, %d secrets told; again: %+v", len(made), len(keys), len(o.secrets), replayed)
	}
	o.leaks()
}

// before is a ledger's store whose clock is behind.
type before struct {
	ledger.Store
	by time.Duration
}

func (b before) Now() time.Time { return b.Store.Now().Add(-b.by) }

// A key that is older than it should be is told of: to its user with every answer, and once to whoever watches.
func TestManagementKeyAge(t *testing.T) {
	o := newOffice(t)
	store, err := sqlite.Open(t.Context(), filepath.Join(o.Dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys := apikey.Keys{Store: before{store, 91 * 24 * time.Hour}, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	_, secret, err := keys.Create(t.Context(), apikey.Grantor{Actor: "admin", Local: true}, apikey.Request{
		Mode: apikey.Test, Label: "an old one", Scopes: []apikey.Scope{apikey.PaymentsRead},
	})
	if err = errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	o.reload() // it looks for old keys soon after its start
	if a := o.ops(secret.Reveal(), http.MethodGet, "/v1/payments", ""); a.Status != http.StatusOK || a.Header.Get("X-Api-Key-Rotation-Due") == "" {
		t.Errorf("%d %v", a.Status, a.Header)
	}
	const want = `caddy_x402_apikey_events_total{event="apikey_rotation_due",mode="test"} 1`
	if !soon(func() bool {
		return strings.Contains(rig.NewBuyer(t, 1).Do(t.Context(), http.MethodGet, "http://"+o.admin+"/metrics", "").Body, want)
	}) {
		t.Error("nobody was told")
	}
}

// Where nothing is said of limits guesses at keys are few all the same, and whoever watches sees them.
func TestManagementGuesses(t *testing.T) {
	o := newOffice(t)
	const allowed = 60
	for i := range allowed {
		if a := o.ops("sk_test_guess", http.MethodGet, "/v1/payments", ""); a.Status != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d %s", i, a.Status, a.Body)
		}
	}
	for range 2 {
		a := o.ops("sk_test_guess", http.MethodGet, "/v1/payments", "")
		if wait, err := strconv.Atoi(a.Header.Get("Retry-After")); a.Status != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 60 {
			t.Errorf("one too many: %d %v %s", a.Status, a.Header, a.Body)
		}
	}
	const want = `caddy_x402_management_limited_total{limit="refused"} 2`
	if a := rig.NewBuyer(t, 1).Do(t.Context(), http.MethodGet, "http://"+o.admin+"/metrics", ""); !strings.Contains(a.Body, want) {
		t.Errorf("nobody sees it: %d", a.Status)
	}
}

// leaks looks for every secret that was made in all that Caddy has written, and in what its admin endpoint tells of the configuration.
func (o *office) leaks() {
	o.t.Helper()
	look := func(where, text string) {
		for _, s := range o.secrets {
			if strings.Contains(text, s[14:]) {
				o.t.Errorf("%s has a secret", where)
			}
		}
	}
	err := filepath.WalkDir(o.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		look(path, string(text))
		return err
	})
	if err != nil {
		o.t.Error(err)
	}
	for _, path := range []string{"/config/", "/x402/v1/api-keys", "/x402/v1/audit", "/x402/audit"} {
		a := rig.NewBuyer(o.t, 1).Do(o.t.Context(), http.MethodGet, "http://"+o.admin+path, "")
		if a.Status != http.StatusOK {
			o.t.Errorf("%s: %d", path, a.Status)
		}
		look(path, a.Body)
	}
}
