package caddymodule_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-x402/caddy-x402"
	"github.com/caddy-x402/caddy-x402/x402"
)

// setExampleEnv sets what the examples read from the environment; the keys are those of development chains.
func setExampleEnv(t *testing.T) {
	for name, value := range map[string]string{
		"BASE_RPC_URL":              "https://rpc.example.com/key",
		"BASE_RPC_URL_2":            "https://rpc.example.net",
		"BASE_SEPOLIA_RPC_URL":      "https://sepolia.example.com",
		"SEPOLIA_RPC_URL":           "https://sepolia.example.org",
		"GAS_WALLET_PRIVATE_KEY":    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
		"REFUND_WALLET_PRIVATE_KEY": "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
		"TOKEN_KEY":                 "b9Xy0uS4rNQ2mKf7cEwZ8hLtJpGd1vAo6iRk",
		"LEDGER_FILE":               filepath.Join(t.TempDir(), "ledger.db"),
		"AVALANCHE_RPC_URL":         "https://avalanche.example.com",
		"FACILITATOR_TOKEN":         "3sWk7PzXq9TnVb2LmRc8YdHf",
		"FACILITATOR_KEY":           "Jt5GhQx1NvZe4WcUo6BrKy0p",
		"SHOP_KEY":                  "sk_shop_8Vw3mYpLq0RtZb5X",
		"WEBHOOK_SECRET":            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwHsYb1Pd6Kyo=",
		"WEBHOOK_KEY":               "n2Vb8XqLw5RtZc7HsYd1Pk6MfJg4UeWo",
		"ISSUE_TOKEN_API_SECRET":    "q7Rw2Zt9LkXv4Nc8HsYb1Pd6",
		"ISSUER_CLIENT_SECRET":      "Zb5xQ1vNt8Lw3Kc6Rm9Hp2Yd",
		"FARM_KEY":                  "sk_farm_Kc7nHd2JxGs9UeWf",
		"PLANS_B64":                 "W3sicGxhbklkIjoiYmFzaWMiLCJ1bml0QW1vdW50IjoiJDAuMTAifV0=",
		"ROUTES_B64":                "W3sicm91dGVJZCI6InciLCJtZXRob2QiOiJHRVQiLCJwYXRoIjoiL3cvOmMiLCJ1bml0QW1vdW50IjoiJDAuMDEifV0=",
		"CDP_API_KEY_ID":            "5f0c2f7e-1d52-4c55-9f3c-0d6a5a3b9e11",
		"CDP_API_KEY_SECRET":        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==",
	} {
		t.Setenv(name, value)
	}
}

func adapt(text string) ([]byte, error) {
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err == nil && len(warnings) > 0 {
		err = fmt.Errorf("warning: %s", warnings[0])
	}
	return config, err
}

// validate does what `caddy validate` does.
func validate(text string) ([]byte, error) {
	config, err := adapt(text)
	if err != nil {
		return nil, err
	}
	c := new(caddy.Config)
	if err := json.Unmarshal(config, c); err != nil {
		return nil, err
	}
	// The default storage is a user's own; validating must not need it.
	c.StorageRaw, err = json.Marshal(map[string]string{"module": "file_system", "root": os.TempDir()})
	if err != nil {
		return nil, err
	}
	return config, caddy.Validate(c)
}

func readText(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const examplePath = "../Caddyfile.example"

// commented finds the lines that are configuration to be uncommented; prose has a space after the sign.
var commented = regexp.MustCompile(`(?m)^(\t*)#([a-z}\t])`)

func TestExampleIsValid(t *testing.T) {
	setExampleEnv(t)
	text := readText(t, examplePath)
	uncommented := commented.ReplaceAllString(text, "$1$2")
	if !strings.Contains(uncommented, "\n\t\tnetwork eip155:") {
		t.Fatal("nothing was uncommented")
	}
	for name, variant := range map[string]string{
		"as it is":            text,
		"with all networks":   uncommented,
		"with refunds off":    regexp.MustCompile(`(?s)refund {env.*?\n\t\t}`).ReplaceAllString(text, "refunds off"),
		"with settler wallet": strings.Replace(text, "\twallet {env.", "\tsettler wallet {env.", 1),
		"with cors off":       regexp.MustCompile(`(?s)cors https.*?\n\t\t}`).ReplaceAllString(text, "cors off"),
		"with wrap":           strings.Replace(text, "format x402_redact\n", "format x402_redact {\n wrap console\n}\n", 1),
	} {
		if variant == text && name != "as it is" {
			t.Errorf("%s: nothing was changed", name)
		}
		config, err := validate(string(caddyfile.Format([]byte(variant))))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, secret := range []string{"GAS_WALLET_PRIVATE_KEY", "REFUND_WALLET_PRIVATE_KEY", "TOKEN_KEY", "BASE_RPC_URL", "FACILITATOR_TOKEN", "CDP_API_KEY_SECRET", "WEBHOOK_SECRET", "WEBHOOK_KEY"} {
			if strings.Contains(string(config), os.Getenv(secret)) {
				t.Errorf("%s: the value of %s stands in the configuration", name, secret)
			}
		}
	}
	if _, err := os.Stat(os.Getenv("LEDGER_FILE")); !os.IsNotExist(err) {
		t.Errorf("validating opened the ledger: %v", err)
	}
}

func TestExampleIsFormatted(t *testing.T) {
	text := readText(t, examplePath)
	if got := string(caddyfile.Format([]byte(text))); got != text {
		t.Errorf("caddy fmt would write:\n%s", got)
	}
}

// The example knows every subdirective that the parsers know: they list them when they meet a wrong one.
func TestExampleIsComplete(t *testing.T) {
	text := readText(t, examplePath)
	for _, n := range x402.Networks() {
		if name := cmp.Or(n.V1Name, n.ID); !strings.Contains(text, name) {
			t.Errorf("the example does not name the network %s", name)
		}
	}
	const wrong = "no_such_thing"
	for where, config := range map[string]string{
		"x402 option": "{\n x402 {\n " + wrong + "\n}\n}\n",
		"network":     "{\n x402 {\n network base {\n " + wrong + "\n}\n}\n}\n",
		"asset":       "{\n x402 {\n network base {\n asset 0x0 {\n " + wrong + "\n}\n}\n}\n}\n",
		"wallet":      "{\n x402 {\n wallet key {\n " + wrong + "\n}\n}\n}\n",
		"facilitator": "{\n x402 {\n facilitator url {\n " + wrong + "\n}\n}\n}\n",
		"x402":        ":80 {\n x402 {\n " + wrong + "\n}\n}\n",
		"route":       ":80 {\n x402 {\n route a GET /a {\n " + wrong + "\n}\n}\n}\n",
		"param":       ":80 {\n x402 {\n route a GET /a {\n param b query {\n " + wrong + "\n}\n}\n}\n}\n",
		"key0_plans":  ":80 {\n x402 {\n key0_plans [] {\n " + wrong + "\n}\n}\n}\n",
		"webhook":     "{\n x402 {\n webhook https://example.com {\n " + wrong + "\n}\n}\n}\n",
		"webhooks":    "{\n x402 {\n webhooks {\n " + wrong + "\n}\n}\n}\n",
		"service":     ":80 {\n x402_service {\n " + wrong + "\n}\n}\n",
		"gateway":     ":80 {\n x402_facilitator {\n " + wrong + "\n}\n}\n",
		"price":       ":80 {\n x402 {\n price $1 {\n " + wrong + "\n}\n}\n}\n",
		"refund":      "{\n x402 {\n refund key {\n " + wrong + "\n}\n}\n}\n",
		"flow":        ":80 {\n x402 {\n flow authorization {\n " + wrong + "\n}\n}\n}\n",
		"idempotency": ":80 {\n x402 {\n idempotency optional {\n " + wrong + "\n}\n}\n}\n",
		"oauth2":      ":80 {\n x402 {\n plan a $1 {\n issuer url {\n auth oauth2 url id key {\n " + wrong + "\n}\n}\n}\n}\n}\n",
		"issuer":      ":80 {\n x402 {\n plan a $1 {\n issuer url {\n " + wrong + "\n}\n}\n}\n}\n",
		"pricer":      ":80 {\n x402 {\n price {\n pricer http url {\n " + wrong + "\n}\n}\n}\n}\n",
		"placeholder": ":80 {\n x402 {\n price {\n pricer placeholder {http.request.header.X} {\n " + wrong + "\n}\n}\n}\n}\n",
		"plan":        ":80 {\n x402 {\n plan a $1 {\n " + wrong + "\n}\n}\n}\n",
		"cors":        ":80 {\n x402 {\n cors {\n " + wrong + "\n}\n}\n}\n",
	} {
		_, err := adapt(config)
		if err == nil {
			t.Errorf("%s accepts %s", where, wrong)
			continue
		}
		list := regexp.MustCompile(`it knows ([a-z0-9_, ]+)`).FindStringSubmatch(err.Error())
		if list == nil {
			t.Errorf("%s does not list what it knows: %v", where, err)
			continue
		}
		for _, name := range regexp.MustCompile(`[a-z0-9_]+`).FindAllString(strings.ReplaceAll(list[1], " and ", " "), -1) {
			if name == "at" { // "…, at Caddyfile:3"
				break
			}
			if !regexp.MustCompile(`(?m)(^\t*#?\t*|` + "`" + `)` + name + `\b`).MatchString(text) {
				t.Errorf("%s: the example has no %s", where, name)
			}
		}
	}
}

// fenced finds the Caddyfiles in a Markdown document.
var fenced = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")

// What the documents show works as it stands.
func TestDocumentedCaddyfiles(t *testing.T) {
	setExampleEnv(t)
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, "../README.md")
	found := map[string]int{}
	for _, path := range documents {
		for _, m := range fenced.FindAllStringSubmatch(readText(t, path), -1) {
			found[path]++
			if _, err := validate(m[1]); err != nil {
				t.Errorf("%s, Caddyfile %d: %v\n%s", path, found[path], err, m[1])
			}
			if got := string(caddyfile.Format([]byte(m[1]))); got != m[1] {
				t.Errorf("%s, Caddyfile %d: caddy fmt would write:\n%s", path, found[path], got)
			}
		}
	}
	if found["../README.md"] == 0 {
		t.Error("README.md shows no Caddyfile")
	}
}

// The documents point to files that are there.
func TestDocumentedFiles(t *testing.T) {
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`)
	for _, path := range slices.Concat(documents, []string{"../README.md"}) {
		for _, m := range link.FindAllStringSubmatch(readText(t, path), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s points to %s: %v", path, m[1], err)
			}
		}
	}
}
