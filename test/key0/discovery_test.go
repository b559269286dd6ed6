package key0

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

type card struct {
	Name, Description, URL, Version, ProtocolVersion string
	Capabilities                                     struct {
		Extensions []struct {
			URI      string
			Required bool
		}
		Streaming, PushNotifications bool
	}
	Skills   []map[string]json.RawMessage
	Provider struct{ Organization, URL string }
}

func agentCard(t *testing.T, s *shop) {
	b := rig.NewBuyer(t, 0)
	for _, path := range []string{"/.well-known/agent.json", "/.well-known/agent-card.json"} {
		a := b.Get(s.URL(path))
		if a.Status != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d %s", path, a.Status, a.Body)
		}
		c := decode[card](t, a)
		if c.Name != "Weather Agent" || c.Description == "" || c.URL != s.URL("/x402/access") || c.ProtocolVersion != "0.3.0" || c.Provider.Organization != "Example" {
			t.Errorf("the card is %s", a.Body)
		}
		if x := c.Capabilities.Extensions; len(x) != 1 || !x[0].Required || !strings.Contains(x[0].URI, "a2a-x402") {
			t.Errorf("the extensions are %+v", x)
		}
		var ids []string
		for _, k := range c.Skills {
			var tags []string
			_ = json.Unmarshal(k["tags"], &tags)
			if !slices.Contains(tags, "pay-per-call") && !slices.Contains(tags, "free") { // these are one for each route
				ids = append(ids, string(k["id"]))
			}
			if _, ok := k["pricing"]; ok {
				t.Errorf("a skill has a price: %s", a.Body)
			}
			if string(k["id"]) == `"discover"` && !slices.Contains(tags, "discovery") || string(k["id"]) == `"access"` && !slices.Contains(tags, "payment") {
				t.Errorf("the tags of %s are %v", k["id"], tags)
			}
		}
		if !slices.Equal(ids, []string{`"discover"`, `"access"`}) {
			t.Errorf("the skills are %v", ids)
		}
	}
}

type discovered struct {
	AgentName string
	Plans     []struct {
		PlanID, UnitAmount string
		Free               bool
	}
	Routes []map[string]any
}

func discovery(t *testing.T, s *shop) {
	b := rig.NewBuyer(t, 0)
	a := b.Get(s.URL("/discover"))
	d := decode[discovered](t, a)
	if a.Status != http.StatusOK || d.AgentName != "Weather Agent" || len(d.Plans) != 2 || d.Plans[0].PlanID != "basic" || d.Plans[0].UnitAmount != "$0.10" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	byID := map[string]map[string]any{}
	for _, r := range d.Routes {
		byID[r["routeId"].(string)] = r
	}
	if r := byID["weather-query"]; r["method"] != "GET" || r["path"] != "/api/weather/:city" || r["unitAmount"] != "$0.01" {
		t.Errorf("the route is %v", r)
	}
	if _, priced := byID["status"]["unitAmount"]; byID["status"] == nil || priced {
		t.Errorf("the free route is %v", byID["status"])
	}
	refused(t, s.post(t, b, body{}), http.StatusBadRequest, "")
	if text := decode[refusal](t, s.post(t, b, body{})).Error; !strings.Contains(text, "discovery") || !strings.Contains(text, "plan") {
		t.Errorf("nothing asked for is answered %q", text)
	}
}

func invalidTier(t *testing.T, s *shop) {
	b := rig.NewBuyer(t, 0)
	refused(t, s.post(t, b, body{"planId": "nonesuch"}), http.StatusNotFound, "TIER_NOT_FOUND")
	refused(t, s.post(t, b, body{"routeId": "nonesuch", "resource": call("GET", "/x")}), http.StatusNotFound, "ROUTE_NOT_FOUND")
	a := s.post(t, b, body{"requestId": name()})
	if a.Status != http.StatusBadRequest || !strings.Contains(decode[refusal](t, a).Error, "discovery") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// Documents are made of the configuration, cached, and tell nothing that offers don't.
func documents(t *testing.T, s *shop) {
	b := rig.NewBuyer(t, 0)
	for path, mime := range map[string]string{
		"/discover": "application/json", "/.well-known/x402": "application/json", "/.well-known/agent-card.json": "application/json",
		"/llms.txt": "text/plain; charset=utf-8", "/skills.md": "text/markdown; charset=utf-8",
	} {
		a := b.Get(s.URL(path), "X-Forwarded-Host", "evil.example.com")
		if a.Status != http.StatusOK || a.Header.Get("Content-Type") != mime || strings.Contains(a.Body, "evil") {
			t.Errorf("%s: %d %s %s", path, a.Status, a.Header.Get("Content-Type"), a.Body)
		}
		for _, secret := range []string{s.Dir, "ledger", s.Upstream.Addr(), s.Chain.URL(), rig.PayTo.Hex()} {
			if strings.Contains(a.Body, secret) {
				t.Errorf("%s tells %s", path, secret)
			}
		}
		tag := a.Header.Get("ETag")
		if again := b.Get(s.URL(path), "If-None-Match", `"x", W/`+tag); tag == "" || again.Status != http.StatusNotModified || again.Body != "" {
			t.Errorf("%s, known as %s: %d %s", path, tag, again.Status, again.Body)
		}
		if head := b.Do(t.Context(), http.MethodHead, s.URL(path), ""); head.Status != http.StatusOK || head.Body != "" {
			t.Errorf("HEAD %s: %d %s", path, head.Status, head.Body)
		}
	}
	if text := b.Get(s.URL("/skills.md")).Body; !strings.Contains(text, "weather-query") || !strings.Contains(text, "POST "+s.URL("/x402/access")) {
		t.Errorf("/skills.md is %s", text)
	}
}

func setupUI(t *testing.T, s *shop) {
	// Key0 serves a page at /setup that writes its configuration, to anybody and while it runs (W8), and pages for its tests (W7). Here
	// the configuration is Caddy's: none of these paths exists, they go to the upstream as any other. So do those of MCP, where Key0 takes
	// money for routes and then fails (W4).
	b := rig.NewBuyer(t, 0)
	before := b.Get(s.URL("/discover")).Body
	for _, path := range []string{
		"/setup", "/setup/", "/setup/assets/index.js", "/setup/assets/index.css", "/api/setup", "/api/setup/status", "/test/challenge/x",
		"/test/write-paid-challenge", "/test/transition-challenge", "/test/audit/x", "/test/expire-request-id", "/mcp", "/.well-known/mcp.json",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			a := b.Do(t.Context(), method, s.URL(path), `{"walletAddress":"0x000000000000000000000000000000000000dEaD"}`)
			if got := decode[map[string]any](t, a); a.Status != http.StatusOK || got["path"] != path {
				t.Errorf("%s %s is answered %d %s", method, path, a.Status, a.Body)
			}
		}
	}
	if after := b.Get(s.URL("/discover")).Body; after != before {
		t.Errorf("the catalogue was %s and is %s", before, after)
	}
}
