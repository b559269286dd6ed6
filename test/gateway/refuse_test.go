package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// refusal is an order that must not be settled, and why.
type refusal struct {
	sign func(*x402.Authorization)
	ask  func(*x402.Requirements)
	// edit changes what is sent.
	edit func(string) string
	want x402.Reason
}

func replace(pairs ...string) func(string) string { return strings.NewReplacer(pairs...).Replace }

// validity makes an authorization good from then until then, in seconds from now.
func validity(after, before int64) func(*x402.Authorization) {
	return func(a *x402.Authorization) {
		now := time.Now().Unix()
		a.ValidAfter.SetUint64(uint64(max(now+after, 0)))
		a.ValidBefore.SetUint64(uint64(now + before))
	}
}

var refusals = map[string]refusal{
	"another value":        {sign: func(a *x402.Authorization) { a.Value.SetUint64(cent + 1) }, want: x402.ReasonValueMismatch},
	"less":                 {sign: func(a *x402.Authorization) { a.Value.SetUint64(cent - 1) }, want: x402.ReasonValueMismatch},
	"another payee":        {sign: func(a *x402.Authorization) { a.To = common.Address{7} }, want: x402.ReasonRecipientMismatch},
	"over":                 {sign: validity(-100, 5), want: x402.ReasonValidBefore},
	"good for ever":        {sign: func(a *x402.Authorization) { a.ValidBefore = *new(uint256.Int).SetAllOne() }, want: x402.ReasonValidBefore},
	"not good yet":         {sign: validity(30, 60), want: x402.ReasonValidAfter},
	"signature":            {edit: replace(`"value":"10000"`, `"value":"10001"`, `"amount":"10000"`, `"amount":"10001"`), want: x402.ReasonSignature},
	"more than there is":   {sign: dear, ask: func(r *x402.Requirements) { r.Amount = dearly }, want: x402.ReasonInsufficientBalance},
	"too little":           {ask: func(r *x402.Requirements) { r.Amount = "999" }, want: x402.ReasonInvalidRequirements},
	"nothing":              {ask: func(r *x402.Requirements) { r.Amount = "0" }, want: x402.ReasonInvalidRequirements},
	"for a stranger":       {ask: func(r *x402.Requirements) { r.PayTo = rig.PayTo.Hex() }, want: x402.ReasonInvalidRequirements},
	"in another asset":     {edit: replace(devnet.TokenAddress.Hex(), rig.PayTo.Hex()), want: x402.ReasonInvalidRequirements},
	"on another network":   {edit: replace("eip155:84532", "eip155:8453"), want: x402.ReasonInvalidNetwork},
	"on two networks":      {edit: first("eip155:84532", "eip155:8453"), want: x402.ReasonNetworkMismatch},
	"another scheme":       {edit: replace(`"scheme":"exact"`, `"scheme":"upto"`), want: x402.ReasonInvalidScheme},
	"two schemes":          {edit: last(`"scheme":"exact"`, `"scheme":"upto"`), want: x402.ReasonUnsupportedScheme},
	"permit2":              {edit: replace(`"extra":{`, `"extra":{"assetTransferMethod":"permit2",`), want: x402.ReasonPayloadType},
	"no domain":            {edit: last(`"version":"2"`, `"version":""`), want: x402.ReasonMissingDomain},
	"another name":         {edit: last(`"name":"USDC"`, `"name":"USD Coin"`), want: x402.ReasonTokenNameMismatch},
	"another version":      {edit: last(`"version":"2"`, `"version":"1"`), want: x402.ReasonTokenVersionMismatch},
	"no amount":            {edit: last(`"amount":"10000"`, `"amount":10000`), want: x402.ReasonInvalidRequirements},
	"half an amount":       {edit: last(`"amount":"10000"`, `"amount":"0.5"`), want: x402.ReasonInvalidRequirements},
	"no address":           {edit: last(`"payTo":"0x`, `"payTo":"0y`), want: x402.ReasonInvalidRequirements},
	"no signature":         {edit: replace(`"signature":"0x`, `"signature":"`), want: x402.ReasonSignatureFormat},
	"no nonce":             {edit: replace(`"nonce":`, `"once":`), want: x402.ReasonInvalidPayload},
	"version 3":            {edit: replace(`"x402Version":2`, `"x402Version":3`), want: x402.ReasonInvalidVersion},
	"two versions":         {edit: last(`"x402Version":2`, `"x402Version":1`), want: x402.ReasonInvalidVersion},
	"a counterfactual one": {edit: func(s string) string { return strings.Replace(s, `"signature":"0x`, `"signature":"0x`+"00", 1) }, want: x402.ReasonUndeployedWallet},
}

// dearly is more than any payer has.
const dearly = "1000000000000"

func dear(a *x402.Authorization) { a.Value = *uint256.MustFromDecimal(dearly) }

func first(old, other string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, other, 1) }
}

func last(old, other string) func(string) string {
	return func(s string) string {
		i := strings.LastIndex(s, old)
		return s[:i] + other + s[i+len(old):]
	}
}

// What must not be settled is refused by both endpoints with the protocol's own words, leaves nothing in the ledger, and costs nothing.
func TestRefuses(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open})
	b := rig.NewBuyer(t, 1)
	gas, err := r.Chain.Balance(t.Context(), devnet.Developer(0).Address)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range refusals {
		t.Run(name, func(t *testing.T) {
			var changes []func(*x402.Requirements)
			if tt.ask != nil {
				changes = append(changes, tt.ask)
			}
			var signs []func(*x402.Authorization)
			if tt.sign != nil {
				signs = append(signs, tt.sign)
			}
			body := order(t, b, requirements(changes...), signs...)
			if tt.edit != nil {
				edited := tt.edit(body)
				if edited == body {
					t.Fatal("nothing was changed")
				}
				body = edited
			}
			a := ask(t, r, b, "verify", body)
			v := read(t, a)
			if a.Status != http.StatusOK || v.IsValid == nil || *v.IsValid || v.InvalidReason != string(tt.want) {
				t.Errorf("verified as %d %s, want %s", a.Status, a.Body, tt.want)
			}
			a = ask(t, r, b, "settle", body)
			s := read(t, a)
			if a.Status != http.StatusOK || s.Success == nil || *s.Success || s.ErrorReason != string(tt.want) || s.Transaction != "" {
				t.Errorf("settled as %d %s, want %s", a.Status, a.Body, tt.want)
			}
			if _, there := said(t, a)["transaction"]; !there {
				t.Errorf("no transaction in %s", a.Body)
			}
		})
	}
	if n := len(payments(t, r.Dir+"/ledger.db")); n != 0 || earned(r) != 0 {
		t.Errorf("%d payments in the ledger, and the shop has %d", n, earned(r))
	}
	left, err := r.Chain.Balance(t.Context(), devnet.Developer(0).Address)
	if err != nil || !left.Eq(gas) {
		t.Errorf("the wallet had %s, and has %s: %v", gas, left, err)
	}
}

// In version 1 a wrong value has another name.
func TestRefusesInVersion1(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open})
	b := rig.NewBuyer(t, 1)
	body := orderV1(t, b, requirements(), func(a *x402.Authorization) { a.Value.SetUint64(cent + 1) })
	if v := read(t, ask(t, r, b, "verify", body)); v.InvalidReason != string(x402.ReasonAuthorizationValue) || v.Payer != b.Account.Address.Hex() {
		t.Errorf("verified as %+v", v)
	}
	if v := read(t, ask(t, r, b, "settle", body)); v.ErrorReason != string(x402.ReasonAuthorizationValue) || v.Network != "base-sepolia" {
		t.Errorf("settled as %+v", v)
	}
}

// What is no order at all gets an HTTP status, and no verdict.
func TestMalformed(t *testing.T) {
	r := rig.New(t, rig.Options{Site: open})
	b := rig.NewBuyer(t, 1)
	good := order(t, b, requirements())
	for name, tt := range map[string]struct {
		body   string
		status int
	}{
		"nothing":         {"", 400},
		"no JSON":         {"x402", 400},
		"half of it":      {good[:len(good)/2], 400},
		"no object":       {"[]", 400},
		"no members":      {"{}", 400},
		"no requirements": {`{"paymentPayload":{}}`, 400},
		"null":            {`{"paymentPayload":null,"paymentRequirements":null}`, 400},
		"very deep":       {`{"paymentPayload":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `,"paymentRequirements":{}}`, 400},
		"too long":        {good + strings.Repeat(" ", 128<<10), 413},
	} {
		t.Run(name, func(t *testing.T) {
			for _, endpoint := range []string{"verify", "settle"} {
				a := ask(t, r, b, endpoint, tt.body)
				m := said(t, a)
				if a.Status != tt.status || m["error"] == "" || m["success"] != nil || m["isValid"] != nil {
					t.Errorf("%s: %d %s", endpoint, a.Status, a.Body)
				}
			}
		})
	}
	if s := read(t, ask(t, r, b, "settle", good)); s.Success == nil || !*s.Success {
		t.Errorf("the good one: %+v", s)
	}
}

const (
	shopKey = "sk-shop-0123456789abcdef"
	farmKey = "sk-farm-fedcba9876543210"
)

// With keys, who has one may ask for payments to anybody, and nobody else may ask for anything.
func TestKeys(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402_facilitator /facilitator/* {
		key shop ` + shopKey + `
		key farm ` + farmKey + `
		name desk
	}
`})
	b := rig.NewBuyer(t, 1)
	body := order(t, b, requirements())
	for _, wrong := range []string{"", "Bearer", "Bearer " + shopKey + "x", "Bearer " + shopKey[:20], "Basic " + shopKey, shopKey} {
		header := []string{"Authorization", wrong}
		if wrong == "" {
			header = nil
		}
		for _, endpoint := range []string{"verify", "settle"} {
			a := ask(t, r, b, endpoint, body, header...)
			if m := said(t, a); a.Status != http.StatusUnauthorized || m["error"] == "" || m["success"] != nil || a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%q: %d %s", wrong, a.Status, a.Body)
			}
		}
	}
	if earned(r) != 0 {
		t.Fatal("money moved")
	}
	if a := b.Get(r.URL("/facilitator/supported")); a.Status != http.StatusOK {
		t.Errorf("what is supported is no secret: %d %s", a.Status, a.Body)
	}
	for i, key := range []string{shopKey, farmKey} {
		a := ask(t, r, b, "settle", order(t, b, requirements()), "Authorization", "bearer "+key)
		if s := read(t, a); s.Success == nil || !*s.Success || earned(r) != uint64(i+1)*cent {
			t.Errorf("key %d: %d %s", i, a.Status, a.Body)
		}
	}
	routes := map[string]int{}
	for _, p := range payments(t, r.Dir+"/ledger.db") {
		routes[p.Binding.Route]++
	}
	if len(routes) != 2 || routes["desk#shop"] != 1 || routes["desk#farm"] != 1 {
		t.Errorf("filed under %v", routes)
	}
}

// Two shops of one owner, with a key each: what was settled for one is no success of the other one's, however often it may be told.
func TestKeysApart(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402_facilitator /facilitator/* {
		key shop ` + shopKey + `
		key farm ` + farmKey + `
		repeat
	}
`})
	b := rig.NewBuyer(t, 1)
	body := order(t, b, requirements())
	for i, key := range []string{shopKey, farmKey, shopKey} {
		v := read(t, ask(t, r, b, "settle", body, "Authorization", "Bearer "+key))
		if key == shopKey && (v.Success == nil || !*v.Success) {
			t.Errorf("request %d: %+v", i, v)
		}
		if key == farmKey && (v.Success == nil || *v.Success || v.ErrorReason != string(x402.ReasonNonceUsed) || v.Transaction != "") {
			t.Errorf("the other shop is told %+v", v)
		}
	}
	if earned(r) != cent {
		t.Errorf("the owner has %d", earned(r))
	}
}

// Each key has its own allowance; who has spent it waits, and nothing is said of its payment.
func TestRateLimit(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402_facilitator /facilitator/* {
		key shop ` + shopKey + `
		key farm ` + farmKey + `
		rate_limit 3 1h
	}
`})
	b := rig.NewBuyer(t, 1)
	body := order(t, b, requirements())
	for i := range 5 {
		a := ask(t, r, b, "verify", body, "Authorization", "Bearer "+shopKey)
		if ok := a.Status == http.StatusOK; ok != (i < 3) {
			t.Errorf("request %d: %d %s", i, a.Status, a.Body)
		}
		if a.Status != http.StatusOK && (a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || said(t, a)["success"] != nil) {
			t.Errorf("request %d: %d %v %s", i, a.Status, a.Header, a.Body)
		}
	}
	if a := ask(t, r, b, "verify", body, "Authorization", "Bearer "+farmKey); a.Status != http.StatusOK {
		t.Errorf("another key: %d %s", a.Status, a.Body)
	}
}
