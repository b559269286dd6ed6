package management_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The ledger's audit is exported as it can be verified elsewhere, and verified here. It is of all networks, so keys for test networks get it only where
// there are no others.
func TestAuditOfTheLedger(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0, apikey.PaymentsRead)
	_, test := o.key(apikey.Test, 0, apikey.PaymentsRead)
	o.claim(base, 1, "", delivered...)
	o.claim(sepolia, 2, "", settled)
	o.pass(24 * time.Hour)
	anchor, err := ledger.NextAnchor(t.Context(), o.store, o.store.Now())
	if err != nil {
		t.Fatal(err)
	}
	export := o.live(live, http.MethodGet, "/v1/audit/export", "")
	report, err := ledger.VerifyExport(t.Context(), strings.NewReader(export.body), ledger.VerifyOptions{})
	if err != nil || report.Found != 0 || report.Payments != 2 || report.Anchors != 1 || export.header.Get("Content-Type") != "application/jsonl" {
		t.Errorf("the export: %v, %+v, %d %v", err, report, export.status, export.header)
	}
	if head := o.live(live, http.MethodHead, "/v1/audit/export", ""); head.status != http.StatusOK || head.body != "" {
		t.Errorf("HEAD: %d %s", head.status, head.body)
	}
	holds := decode[management.AuditReport](t, o.live(live, http.MethodGet, "/v1/audit/verify?expect="+report.LastAnchor.Hex(), ""))
	if !holds.Holds || holds.Payments != 2 || holds.Anchors != 1 || holds.LastAnchor != report.LastAnchor.Hex() {
		t.Errorf("verified (anchor %d): %+v", anchor.Sequence, holds)
	}
	broken := decode[management.AuditReport](t, o.live(live, http.MethodGet, "/v1/audit/verify?expect=0x"+strings.Repeat("12", 32), ""))
	if broken.Holds || broken.Found != 1 || len(broken.Problems) != 1 || broken.Problems[0].Kind != "expected" {
		t.Errorf("an anchor that is not there: %+v", broken)
	}
	for path, want := range map[string]string{
		"/v1/audit/export?after=99": "404 audit.anchor_not_found", "/v1/audit/export?after=x": "400 request.invalid", "/v1/audit/verify?expect=0x12": "400 request.invalid",
	} {
		if a := o.live(live, http.MethodGet, path, ""); statusAndCode(a) != want {
			t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want)
		}
	}
	for _, path := range []string{"/v1/audit/export", "/v1/audit/verify"} {
		if a := o.test(test, http.MethodGet, path, ""); statusAndCode(a) != "403 network.mainnet_required" {
			t.Errorf("%s with a test key: %d %s", path, a.status, a.body)
		}
	}
	o.shop.Networks = []x402.Network{sepolia}
	if a := o.test(test, http.MethodGet, "/v1/audit/verify", ""); a.status != http.StatusOK {
		t.Errorf("where there are test networks alone: %d %s", a.status, a.body)
	}
}

// ring is keys of tokens that says what it was asked.
type ring struct {
	asked []string
	fails error
}

func (r *ring) answer(what string) (management.TokenKeyList, error) {
	r.asked = append(r.asked, what)
	return management.ViewTokenKeys("storage", []token.KeyInfo{{ID: "k1", Algorithm: "EdDSA", State: token.KeySigning, LongestToken: 60}}), r.fails
}

func (r *ring) List(context.Context) (management.TokenKeyList, error) { return r.answer("list") }

func (r *ring) Rotate(_ context.Context, o token.Rotation) (management.TokenKeyList, error) {
	what := "rotate " + o.Algorithm + " " + o.Lead.String()
	if o.Overlap != nil {
		what += " " + o.Overlap.String()
	}
	return r.answer(what)
}

func (r *ring) Retire(_ context.Context, id string, force bool) (management.TokenKeyList, error) {
	if force {
		id += " forced"
	}
	return r.answer("retire " + id)
}

// The keys of tokens are shown to who may see payments, and turned by who may manage keys, which the audit tells.
func TestTokenKeysByAPI(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	_, reader := o.key(apikey.Live, 0, apikey.PaymentsRead)
	_, test := o.key(apikey.Test, 0)
	if a := o.live(live, http.MethodGet, "/v1/token-keys", ""); statusAndCode(a) != "404 token_key.none" {
		t.Errorf("where there are none: %d %s", a.status, a.body)
	}
	r := new(ring)
	o.shop.TokenKeys = r
	list := decode[management.TokenKeyList](t, o.live(reader, http.MethodGet, "/v1/token-keys", ""))
	if list.Source != "storage" || len(list.Data) != 1 || list.Data[0].State != "signing" || list.Data[0].LongestTokenSeconds != 60 || list.Data[0].VerifiesUntil != nil {
		t.Errorf("%+v", list)
	}
	post := func(secret, path, body string) answer {
		return o.live(secret, http.MethodPost, "/v1/token-keys/"+path, body, "Idempotency-Key", path+body+secret[:20])
	}
	decode[management.TokenKeyList](t, post(live, "rotate", ""))
	decode[management.TokenKeyList](t, post(live, "rotate", `{"algorithm":"ES256","leadSeconds":30,"overlapSeconds":0,"force":true}`))
	decode[management.TokenKeyList](t, post(live, "k0/retire", `{"force":true}`))
	if got := strings.Join(r.asked, ", "); got != "list, rotate  0s, rotate ES256 30s 0s, retire k0 forced" {
		t.Errorf("asked: %s", got)
	}
	for _, tc := range []struct {
		got  answer
		want string
	}{
		{post(reader, "rotate", ""), "403 apikey.scope_insufficient"},
		{post(live, "rotate", `{"leadSeconds":1}`), "400 request.invalid"},
		{post(live, "rotate", `{"algorithm":"none"}`), "400 request.invalid"},
		{o.test(test, http.MethodPost, "/v1/token-keys/rotate", "", "Idempotency-Key", "t"), "403 network.mainnet_required"},
		{o.live(live, http.MethodPost, "/v1/token-keys/rotate", ""), "400 idempotency.key_required"},
	} {
		if statusAndCode(tc.got) != tc.want {
			t.Errorf("%d %s, want %s", tc.got.status, tc.got.body, tc.want)
		}
	}
	r.fails = &management.Error{Status: http.StatusConflict, Code: management.CodeTokenKeySigns, Message: "it signs"}
	if a := post(live, "k1/retire", ""); statusAndCode(a) != "409 token_key.signs" {
		t.Errorf("%d %s", a.status, a.body)
	}
	deeds := decode[listed[management.Deed]](t, o.live(live, http.MethodGet, "/v1/audit", "")).Data
	if len(deeds) == 0 || !strings.Contains(deeds[0].Operation, "TokenKey") {
		t.Errorf("the audit: %+v", deeds)
	}
}
