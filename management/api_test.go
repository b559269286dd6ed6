package management_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// Errors have one form, whoever finds them, and the other one for who asks for it by name. The request's id is in the header, too.
func TestErrorsHaveOneForm(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	for _, tc := range []struct{ method, path, body, want, allow string }{
		{"GET", "/v1/nothing", "", "404 resource.not_found", ""},
		{"GET", "/", "", "404 resource.not_found", ""},
		{"POST", "/v1/payments", "", "405 request.method_not_allowed", "GET, HEAD"},
		{"PUT", "/v1/api-keys", "{}", "405 request.method_not_allowed", "GET, HEAD, POST"},
		{"GET", "/v1/payments?limit=x", "", "400 request.invalid", ""},
		{"GET", "/v1/payments/pay_aanobody", "", "404 payment.not_found", ""},
		{"POST", "/v1/api-keys", "not JSON", "400 request.invalid", ""},
		{"POST", "/v1/api-keys", `{"label":"` + strings.Repeat("x", 70_000) + `"}`, "413 request.too_large", ""},
	} {
		a := o.live(live, tc.method, tc.path, tc.body, "Idempotency-Key", "k")
		if statusAndCode(a) != tc.want || a.header.Get("Content-Type") != "application/json" || a.header.Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d %v %.300s", tc.method, tc.path, a.status, a.header, a.body)
		}
		var e management.Envelope
		dec := json.NewDecoder(strings.NewReader(a.body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil || e.Error.Message == "" || e.Error.RequestID == "" || e.Error.RequestID != a.header.Get("X-Request-Id") {
			t.Errorf("%s %s: %v, %+v, X-Request-Id %s", tc.method, tc.path, err, e, a.header.Get("X-Request-Id"))
		}
		p := o.live(live, tc.method, tc.path, tc.body, "Idempotency-Key", "k2", "Accept", "application/problem+json, application/json;q=0.5")
		var problem management.Problem
		if err := json.Unmarshal([]byte(p.body), &problem); err != nil || p.header.Get("Content-Type") != "application/problem+json" ||
			problem.Code != e.Error.Code || problem.Status != p.status || problem.RequestID != p.header.Get("X-Request-Id") {
			t.Errorf("%s %s as a problem: %v, %s", tc.method, tc.path, err, p.body)
		}
	}
	form := o.live(live, "POST", "/v1/api-keys", "a=b", "Idempotency-Key", "form", "Content-Type", "application/x-www-form-urlencoded")
	if statusAndCode(form) != "415 request.media_type" {
		t.Errorf("a form: %d %s", form.status, form.body)
	}
	if a := o.live(live, "POST", "/v1/api-keys", `{"label":"x","scopes":["access"]}`, "Idempotency-Key", "form"); a.status != http.StatusCreated {
		t.Errorf("after it, with the same key: %d %s", a.status, a.body)
	}
}

// HEAD is answered as GET is, without the body.
func TestHead(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	for _, path := range []string{"/v1/payments", "/v1/payments/export", "/v1/nothing", "/openapi.json", "/docs"} {
		get, head := o.live(live, http.MethodGet, path, ""), o.live(live, http.MethodHead, path, "")
		if head.status != get.status || head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
			t.Errorf("%s: GET %d, HEAD %d %q", path, get.status, head.status, head.body)
		}
	}
	o.shop.Store = unread{o.store, t}
	if a := o.live(live, http.MethodHead, "/v1/payments/export", ""); a.status != http.StatusOK {
		t.Errorf("%d", a.status)
	}
}

// unread is a ledger whose payments nobody may list.
type unread struct {
	ledger.Store
	t *testing.T
}

func (s unread) List(context.Context, ledger.Query) ([]ledger.Payment, error) {
	s.t.Error("all payments are read, and nobody is told")
	return nil, nil
}

// The document is OpenAPI 3.1, is the same in YAML, refers to nothing that is not there, and knows of no error but ours.
func TestDocument(t *testing.T) {
	o := newOffice(t)
	a := ask(t, o.local, http.MethodGet, "/x402/openapi.json", "")
	var doc struct {
		OpenAPI string `json:"openapi"`
		Servers []struct {
			URL string `json:"url"`
		} `json:"servers"`
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string `json:"summary"`
			Parameters  []struct {
				Name     string `json:"name"`
				Required bool   `json:"required"`
			} `json:"parameters"`
			Responses map[string]any `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.OpenAPI != "3.1.0" || a.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%v: %d %s", err, a.status, doc.OpenAPI)
	}
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "/x402" {
		t.Errorf("servers: %+v", doc.Servers)
	}
	for _, ref := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllStringSubmatch(a.body, -1) {
		if doc.Components.Schemas[ref[1]] == nil {
			t.Errorf("there is no schema %s", ref[1])
		}
	}
	seen := map[string]bool{}
	if strings.Contains(a.body, `"security":`) || !strings.Contains(ask(t, o.remote, http.MethodGet, "/openapi.json", "").body, `"security":[{"apiKey":[]}]`) {
		t.Error("keys are needed at the machine, or not elsewhere")
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.OperationID == "" || op.Summary == "" || seen[op.OperationID] || op.Responses["default"] == nil || len(op.Responses) != 2 {
				t.Errorf("%s %s: %+v", method, path, op)
			}
			seen[op.OperationID] = true
			var names []string
			for _, p := range op.Parameters {
				names = append(names, p.Name)
			}
			if !slices.Contains(names, "X-Network") || (method != "get") != slices.Contains(names, "Idempotency-Key") {
				t.Errorf("%s %s has the parameters %v", method, path, names)
			}
		}
	}
	for _, name := range []string{"ErrorModel", "ErrorDetail"} {
		if doc.Components.Schemas[name] != nil {
			t.Errorf("the document has %s", name)
		}
	}
	if y := ask(t, o.local, http.MethodGet, "/x402/openapi.yaml", ""); !strings.Contains(y.body, "openapi: 3.1.0") || y.status != http.StatusOK {
		t.Errorf("YAML: %d", y.status)
	}
}

// The page for people names every operation, and its policy allows it nothing but its own style.
func TestPage(t *testing.T) {
	o := newOffice(t)
	a := ask(t, o.remote, http.MethodGet, "/docs", "")
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(a.body)
	if a.status != http.StatusOK || style == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	sum := sha256.Sum256([]byte(style[1]))
	if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])) || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("the policy is %s", policy)
	}
	if strings.Contains(a.body, "<script") || regexp.MustCompile(`(?i)(src|href)="?https?:`).MatchString(a.body) {
		t.Error("it needs something from elsewhere")
	}
	for _, want := range []string{"refundPayment", "/v1/api-keys/{id}/rotate", "overlapSeconds", "apikey.network_mismatch", "payments:write"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("it does not say %s", want)
		}
	}
}

// Whoever meets a code finds it on the page.
func TestPageTellsAllCodes(t *testing.T) {
	page := ask(t, newOffice(t).remote, http.MethodGet, "/docs", "").body
	code := regexp.MustCompile(`(?m)^\tCode\w+\s+= "([a-z_.]+)"`)
	for _, name := range []string{"error.go", "feed.go", "webhooks/errors.go"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := code.FindAllSubmatch(source, -1)
		if len(found) == 0 {
			t.Errorf("no codes in %s", name)
		}
		for _, f := range found {
			if !strings.Contains(page, "<code>"+string(f[1])+"</code>") {
				t.Errorf("%s of %s is not told", f[1], name)
			}
		}
	}
}

// What the API does not answer is left to others.
func TestPaths(t *testing.T) {
	o := newOffice(t)
	for path, want := range map[string]bool{
		"/x402/v1/payments": true, "/x402/docs": true, "/x402/openapi.json": true, "/x402/v1": true, "/v1/payments": false,
		"/x402/payments": false, "/x402": false, "/x402/v10": false,
	} {
		if o.local.Paths(path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
	for path, want := range map[string]bool{"/dashboard": true, "/dashboard/app.css": true, "/dashboards": false} {
		if o.remote.Paths(path) != want || o.local.Paths("/x402"+path) { // there are no keys to sign in with at the machine's own endpoint
			t.Errorf("%s: %t", path, !want)
		}
	}
}
