package caddymodule_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

func TestCatalogueInConfigurations(t *testing.T) {
	inPrice := func(route string) string { return "x402 {\nprice $0.01 {\n" + route + "\n}\n}" }
	setSecrets(t)
	for name, tc := range map[string]struct{ site, want string }{
		"a route":               {site: inPrice("route a GET /a/:b {\ndescription \"A\"\nparam b path string {\ndescription \"B\"\n}\nparam c query {\nrequired\n}\n}")},
		"a route beside":        {site: "x402 $0.01 {\nroute a get /a\n}"},
		"a free route":          {site: "x402 {\nprice $0.01 {\nmatch {\npath /p\n}\n}\nroute a GET /a\nunpriced free\n}"},
		"an exempt route":       {site: "x402 $0.01 {\nexempt {\npath /a\n}\nroute a GET /a {\nfree\n}\n}"},
		"no path":               {site: inPrice("route a GET"), want: "a route needs an id, a method and a path"},
		"an odd id":             {site: inPrice("route a/b GET /a"), want: `route id "a/b"`},
		"an odd method":         {site: inPrice("route a FETCH /a"), want: `the method "FETCH" is none of GET, POST, PUT, PATCH, DELETE`},
		"an odd path":           {site: inPrice("route a GET a"), want: `the path "a" is not one such as /api/weather/:city`},
		"a path with a query":   {site: inPrice("route a GET /a?b"), want: `the path "/a?b" is not one`},
		"a path with a glob":    {site: inPrice("route a GET /a/*"), want: "is not one such as"},
		"a path with dots":      {site: inPrice("route a GET /a/../b"), want: `has a part ".."`},
		"a path of the service": {site: inPrice("route a GET /x402/access"), want: "the path /x402/access belongs to x402_service"},
		"two of one id":         {site: inPrice("route a GET /a\nroute a GET /a"), want: `two routes of the catalogue have the id "a"`},
		"an id of a plan":       {site: "x402 $0.01 {\nroute a GET /a\nplan a $1 {\nttl 1h\n}\n}", want: `a route and a plan have the id "a"`},
		"a route for nothing":   {site: "x402 {\nprice $0.01 {\nmatch {\npath /p\n}\n}\nroute a GET /a\nunpriced deny\n}", want: "route a has no price, and nothing is free here"},
		"a free one of a price": {site: inPrice("route a GET /a {\nfree\n}"), want: "route a is free, and stands in the block of a price"},
		"an odd param":          {site: inPrice("route a GET /a {\nparam b header\n}"), want: `param b is in "header", which is none of path, query, body`},
		"an odd type":           {site: inPrice("route a GET /a {\nparam b query date\n}"), want: `param b has the type "date"`},
		"an odd service":        {site: "x402 $0.01\nx402_service {\nllms maybe\n}", want: "maybe is neither on nor off"},
		"a short challenge":     {site: "x402 $0.01\nx402_service {\nchallenge_ttl 10ms\n}", want: "challenge_ttl must be between 1s and 24h"},
		"an odd endpoint":       {site: "x402 $0.01\nx402_service {\nresource_endpoint /x\n}", want: `resource_endpoint: "/x" is not an address`},
		"an odd provider":       {site: "x402 $0.01\nx402_service {\nprovider me https://me.example you\n}", want: "wrong argument count"},
		"no JSON of Key0":       {site: "x402 {\nkey0_plans basic\n}", want: "key0_plans is neither JSON nor base64; give it a list as Key0's PLANS has it"},
		"a free plan of Key0":   {site: "x402 {\nkey0_plans `[{\"planId\":\"a\",\"free\":true}]`\n}", want: "plan a has no price"},
		"an odd route of Key0":  {site: "x402 {\nkey0_routes `[{\"routeId\":\"a\",\"method\":\"GET\",\"path\":\"a\",\"unitAmount\":\"$1\"}]`\n}", want: "key0_routes: route a: the path"},
	} {
		t.Run(name, func(t *testing.T) {
			adapted, err := adapt(config("", tc.site))
			switch {
			case err == nil:
				refused(t, adapted, tc.want)
			case tc.want == "" || !strings.Contains(err.Error(), tc.want):
				t.Errorf("error: %v\nwant: %s", err, tc.want)
			}
		})
	}
}

// setKey0Env sets what Key0 has in its environment, and gives the Caddyfile that reads it.
func setKey0Env(t *testing.T) (text string) {
	t.Helper()
	setExampleEnv(t)
	for name, value := range map[string]string{
		"KEY0_WALLET_ADDRESS": payTo, "RPC_URL_OVERRIDE": "https://rpc.example.com", "KEY0_WALLET_PRIVATE_KEY": os.Getenv("REFUND_WALLET_PRIVATE_KEY"),
		"REDIS_URL": "redis://localhost:6379", "DATABASE_URL": "postgres://localhost/key0", "AGENT_URL": "https://api.example.com", "KEY0_PROXY_SECRET": "s",
		"ISSUE_TOKEN_API": "https://backend.example.com/issue-token",
	} {
		t.Setenv(name, value)
	}
	return readText(t, "../deploy/key0/Caddyfile")
}

// Key0's catalogue is taken as it is, from its environment variables: the file in deploy/ is one for who comes from Key0.
func TestKey0Catalogue(t *testing.T) {
	text := setKey0Env(t)
	if got := string(caddyfile.Format([]byte(text))); got != text {
		t.Errorf("caddy fmt would write:\n%s", got)
	}
	for _, network := range []string{"", "testnet", "mainnet"} {
		for _, backend := range []string{"", "redis", "postgres"} {
			set(t, "KEY0_NETWORK", network)
			set(t, "STORAGE_BACKEND", backend)
			config, err := validate(text)
			if err != nil {
				t.Errorf("%s on %s: %v", network, backend, err)
				continue
			}
			want := `"store":"` + cmpOr(backend, "redis") + `"`
			if !strings.Contains(string(config), want) || strings.Contains(string(config), os.Getenv("KEY0_WALLET_PRIVATE_KEY")) {
				t.Errorf("%s on %s: %s", network, backend, config)
			}
		}
	}
}

// Each of Key0's settings counts, in its own unit, and what contradicts itself is said before anything is opened.
func TestKey0Environment(t *testing.T) {
	text := setKey0Env(t)
	const basic = "W3sicGxhbklkIjoiYmFzaWMiLCJ1bml0QW1vdW50IjoiJDAuMTAifV0="
	for name, tc := range map[string]struct {
		env        map[string]string // "": not set
		want, says string            // in the configuration; in the error
	}{
		"defaults of refunds": {want: `"min_age":300000000000`},
		"rounds of refunds":   {env: map[string]string{"REFUND_INTERVAL_MS": "5000", "REFUND_BATCH_SIZE": "7"}, want: `"refunds":{"interval":5000000000,"batch":7}`},
		"grace":               {env: map[string]string{"REFUND_MIN_AGE_MS": "48000"}, want: `"min_age":48000000000`},
		"too little grace":    {env: map[string]string{"REFUND_MIN_AGE_MS": "46000"}, says: "plan basic: the issuer may take 47s with all its tries, and payments are held for refund after min_age 46s"},
		"a patient issuer":    {env: map[string]string{"TOKEN_ISSUE_TIMEOUT_MS": "90000", "TOKEN_ISSUE_RETRIES": "3"}, says: "the issuer may take 6m4s with all its tries, and payments are held for refund after min_age 5m0s"},
		"a short one":         {env: map[string]string{"TOKEN_ISSUE_TIMEOUT_MS": "500", "TOKEN_ISSUE_RETRIES": "0"}, want: `"retries":0,"timeout":500000000`},
		"by its secret":       {want: `"auth":{"secret":"{env.ISSUE_TOKEN_API_SECRET}","type":"bearer"}`},
		"without its secret":  {env: map[string]string{"ISSUE_TOKEN_API_SECRET": ""}, says: "the issuer's secret: the placeholder {env.ISSUE_TOKEN_API_SECRET} gives nothing"},
		"which is said":       {env: map[string]string{"ISSUE_TOKEN_API_SECRET": "", "BACKEND_AUTH_STRATEGY": "none"}, want: `"issuer":{"retries":2,`},
		"by a token":          {env: map[string]string{"ISSUE_TOKEN_API_SECRET": "", "BACKEND_AUTH_STRATEGY": "jwt"}, want: `"auth":{"type":"jwt"}`},
		"no issuer":           {env: map[string]string{"ISSUE_TOKEN_API": ""}, says: "the issuer's address: the placeholder {env.ISSUE_TOKEN_API} gives nothing"},
		"an issuer in clear":  {env: map[string]string{"ISSUE_TOKEN_API": "http://backend:3001/issue-token"}, says: "the address must be https, since secrets are sent to it"},
		"the wallet that earns": {
			env:  map[string]string{"KEY0_WALLET_ADDRESS": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"},
			says: "the refund wallet 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 is the pay_to of eip155:84532 as well; give refunds a wallet of their own",
		},
		"nothing to sell":   {env: map[string]string{"PLANS_B64": "", "ROUTES_B64": ""}, want: `"name":"basic","price":"$0.10"`},
		"plans as JSON":     {env: map[string]string{"PLANS_B64": "", "PLANS": `[{"planId":"pro","unitAmount":"$2","quota":3}]`}, want: `"fields":{"quota":3}`},
		"base64 before it":  {env: map[string]string{"PLANS_B64": basic, "PLANS": `[{"planId":"pro","unitAmount":"$2"}]`}, want: `"name":"basic"`},
		"routes as JSON":    {env: map[string]string{"ROUTES_B64": "", "ROUTES": `[{"routeId":"j","method":"GET","path":"/j","unitAmount":"$0.5"}]`}, want: `"amount":"$0.5"`},
		"routes alone":      {env: map[string]string{"PLANS_B64": "W10=", "ISSUE_TOKEN_API": ""}, want: `"id":"w"`},
		"base64 of nothing": {env: map[string]string{"PLANS_B64": "x"}, says: "key0_plans is neither JSON nor base64"},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range tc.env {
				t.Setenv(name, value)
				set(t, name, value)
			}
			config, err := validate(text)
			switch {
			case err == nil && tc.says == "" && strings.Contains(string(config), tc.want):
			case err != nil && tc.says != "" && strings.Contains(err.Error(), tc.says):
			default:
				t.Errorf("error: %v\nwant: %s\n%s", err, cmpOr(tc.says, tc.want), config)
			}
		})
	}
}

// What the Caddyfile reads stands in the list beside it, and nothing else.
func TestKey0EnvironmentIsListed(t *testing.T) {
	read, listed := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`\{(?:env\.|\$)([A-Z][A-Z0-9_]+)`).FindAllStringSubmatch(readText(t, "../deploy/key0/Caddyfile"), -1) {
		read[m[1]] = m[1] != "NAME"
	}
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z][A-Z0-9_]+)=`).FindAllStringSubmatch(readText(t, "../deploy/key0/env.example"), -1) {
		listed[m[1]] = true
	}
	for name := range listed {
		if !read[name] {
			t.Errorf("nobody reads %s", name)
		}
	}
	for name, really := range read {
		if really && !listed[name] {
			t.Errorf("%s is not listed", name)
		}
	}
	if len(listed) < 20 {
		t.Errorf("only %d are listed", len(listed))
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func set(t *testing.T, name, value string) {
	t.Helper()
	if value == "" {
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Setenv(name, value)
}

// What comes from Key0 is sold as it was there, and what it does not name is not reached.
func TestKey0CatalogueSells(t *testing.T) {
	plans := `[{"planId":"basic","unitAmount":"$0.10","kept":"by Key0's issuer"}]`
	routes := base64.StdEncoding.EncodeToString([]byte(`[{"routeId":"status","method":"GET","path":"/api/status"},` +
		`{"routeId":"weather","method":"GET","path":"/api/weather/:city","unitAmount":"$0.01","params":[{"name":"city","in":"path"}]}]`))
	r := rig.New(t, rig.Options{Site: "x402 {\nkey0_plans `" + plans + "`\nkey0_routes " + routes + "\n}\nx402_service\nreverse_proxy {upstream}"})
	b := rig.NewBuyer(t, 1)
	d := decoded[struct {
		Plans, Routes []map[string]any
	}](t, b.Get(r.URL("/discover")))
	if len(d.Plans) != 1 || d.Plans[0]["unitAmount"] != "$0.10" || len(d.Routes) != 2 || d.Routes[0]["unitAmount"] != "$0.01" || d.Routes[1]["unitAmount"] != nil {
		t.Errorf("the catalogue is %+v", d)
	}
	for path, want := range map[string]int{
		"/api/status": 200, "/api/weather/x": 402, "/api/weather/x/": 402, "/api//weather/x": 402, "/api/weather/x/y": 403, "/api/weather/": 403, "/": 403, "/api/status/x": 403,
	} {
		if a := b.Get(r.URL(path)); a.Status != want {
			t.Errorf("%s: %d, want %d", path, a.Status, want)
		}
	}
	if a := b.Do(t.Context(), http.MethodHead, r.URL("/api/weather/x"), ""); a.Status != http.StatusPaymentRequired {
		t.Errorf("HEAD: %d", a.Status)
	}
	if a := b.Do(t.Context(), http.MethodDelete, r.URL("/api/weather/x"), ""); a.Status != http.StatusForbidden {
		t.Errorf("DELETE: %d", a.Status)
	}
}

// A service tells of its own site, and sells nothing of another's. Plans of one name go by the name of their set, too.
func TestCatalogueOfASite(t *testing.T) {
	o := rig.Options{Site: `
	@one host 127.0.0.1
	x402_service {
		llms off
	}
	x402 /a/* {
		name a
		price $0.01
		plan day $1 {
			ttl 24h
		}
		plan month $9 {
			ttl 30d
		}
		route a GET /a/x
	}
	x402 /b/* {
		name b
		price $0.02
		plan day $2 {
			ttl 24h
		}
		route b GET /b/x
	}
	respond ok
}
http://other.example:{rig_port} {
	x402_service
	x402 {
		name c
		price $0.03
		plan year $99 {
			ttl 365d
		}
		route c GET /c
	}
	respond ok
`}
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 1)
	ids := func(header ...string) (list []string) {
		d := decoded[struct {
			Plans  []struct{ PlanID string }
			Routes []struct{ RouteID string }
		}](t, b.Get(r.URL("/discover"), header...))
		for _, p := range d.Plans {
			list = append(list, p.PlanID)
		}
		for _, p := range d.Routes {
			list = append(list, p.RouteID)
		}
		return list
	}
	if got := ids(); !slices.Equal(got, []string{"a:day", "month", "b:day", "a", "b"}) {
		t.Errorf("one site sells %v", got)
	}
	if got := ids("Host", "other.example"); !slices.Equal(got, []string{"year", "c"}) {
		t.Errorf("the other sells %v", got)
	}
	access := func(body string, header ...string) rig.Answer {
		return b.Do(t.Context(), http.MethodPost, r.URL("/x402/access"), body, header...)
	}
	for body, want := range map[string]int{
		`{"planId":"a:day"}`: 402, `{"planId":"year"}`: 404, `{"planId":"day"}`: 404, `{"routeId":"c","resource":{"method":"GET","path":"/c"}}`: 404,
		`{"routeId":"b","resource":{"method":"GET","path":"/b/x"}}`: 402,
	} {
		if a := access(body); a.Status != want {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	if a := access(`{"planId":"year"}`, "Host", "other.example"); a.Status != http.StatusPaymentRequired {
		t.Errorf("at the other site: %d %s", a.Status, a.Body)
	}
	// What is off is the site's own, and without public_url there is no address for a card.
	if a := b.Get(r.URL("/llms.txt")); a.Status != http.StatusOK || a.Body != "ok" {
		t.Errorf("/llms.txt: %d %s", a.Status, a.Body)
	}
	if a := b.Get(r.URL("/.well-known/agent.json")); a.Status != http.StatusNotFound {
		t.Errorf("the agent card: %d %s", a.Status, a.Body)
	}
}

// A call by a route's id goes through all that guards the route.
func TestCallIsGuarded(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	basic_auth /secret/* {
		me $2a$04$jKr.T61NBbH71r40kEKq7u.5CaCFD1Hba.T//VdeYm6AFQ1n3EOsi
	}
	x402 $0.01 {
		route secret GET /secret/:name
	}
	x402_service
	handle_errors {
		respond "error {err.status_code}"
	}
	reverse_proxy {upstream}`})
	b := rig.NewBuyer(t, 1)
	ask := func(header ...string) rig.Answer {
		return b.Do(t.Context(), http.MethodPost, r.URL("/x402/access"), `{"routeId":"secret","resource":{"method":"GET","path":"/secret/x"}}`, header...)
	}
	a := ask()
	if a.Status != http.StatusUnauthorized || a.Body != "error 401" || a.Header.Get("Www-Authenticate") == "" {
		t.Errorf("without a password: %d %s %v", a.Status, a.Body, a.Header)
	}
	if a = ask("Authorization", "Basic bWU6d3Jvbmc="); a.Status != http.StatusUnauthorized {
		t.Errorf("with a wrong password: %d %s", a.Status, a.Body)
	}
	if a = ask("Authorization", "Basic bWU6cGFzcw=="); a.Status != http.StatusPaymentRequired || a.Header.Get("Payment-Required") == "" {
		t.Errorf("with the password: %d %s", a.Status, a.Body)
	}
	if r.Upstream.Calls() != 0 {
		t.Error("the upstream was reached")
	}
}
