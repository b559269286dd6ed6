package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/x402"
)

func scanned(t *testing.T, text string) *secretScan {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	s := newSecretScan()
	s.shaped("", v)
	s.fields("", v)
	return s
}

// Secrets that stand in a configuration are found by their fields and by their looks; what is public is not taken for one.
func TestDoctorFindsLiteralSecrets(t *testing.T) {
	const key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
	for text, want := range map[string]string{
		`{"settler":{"keys":["0x` + key + `"]}}`:                                      "/settler/keys/0",
		`{"refund":"` + key + `"}`:                                                    "/refund",
		`{"refund":"off"}`:                                                            "",
		`{"refund":"{env.REFUND}"}`:                                                   "",
		`{"token_keys":["a short one"]}`:                                              "/token_keys/0",
		`{"headers":{"X-Key":"sk_live_0123456789abcdefghijABCDEFGHIJ"}}`:              "/headers/X-Key",
		`{"note":"whsec_` + strings.Repeat("QUJD", 11) + `"}`:                         "/note",
		`{"note":"-----BEGIN EC PRIVATE KEY-----"}`:                                   "/note",
		`{"store":{"url":"postgres://x402:hunter2@db/x402"}}`:                         "/store/url",
		`{"store":{"url":"postgres://x402:{env.P}@db/x402"}}`:                         "",
		`{"rpc":["https://base.example/v2/AbCdEf0123456789AbCdEf0123456789"]}`:        "/rpc/0",
		`{"rpc":["https://base.example/?apikey=abc"]}`:                                "/rpc/0",
		`{"rpc":["https://mainnet.base.org","http://127.0.0.1:8545"]}`:                "",
		`{"pay_to":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C"}`:                     "",
		`{"signer":{"signer":"key","key":"0x` + key[:50] + `"}}`:                      "/signer/key",
		`{"signer":{"signer":"aws_kms","key":"alias/gas","secret_access_key":"abc"}}`: "/signer/secret_access_key",
		`{"facilitators":[{"headers":{"X-Version":"2","X-Api-Key":"abc"}}]}`:          "/facilitators/0/headers/X-Api-Key",
		`{"free_tier":{"key":"{http.auth.user.id}"}}`:                                 "",
	} {
		if got := strings.Join(scanned(t, text).literals, " "); got != want {
			t.Errorf("%s: found %q", text, got)
		}
	}
}

// Of secrets that placeholders stand for it is told whether they can be read, by whom, and whether they are weak; never what they are.
func TestDoctorWeighsSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	strong := "9vQ2kXr7LwPz4TnYb8HcJd6MfGs1AeUo"
	if err := os.WriteFile(file, []byte(strong+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("T_DOCTOR_STRONG", strong)
	t.Setenv("T_DOCTOR_WEAK", "letmein")
	s := scanned(t, `{"signer":{"signer":"key","key":"{env.T_DOCTOR_WEAK}"},"bearer":"{env.T_DOCTOR_WEAK}","secret":"{env.T_DOCTOR_STRONG}","token_keys":["{file.`+file+`}"],"rpc":["{env.T_DOCTOR_WEAK}"],"refund":"{env.T_DOCTOR_NOTHING}"}`)
	if len(s.literals) > 0 || len(s.secrets) != 6 {
		t.Fatalf("%+v", s)
	}
	byName := func(name string) int {
		return slices.IndexFunc(s.secrets, func(x doctor.Secret) bool { return x.Name == name })
	}
	weak, other, held, rpc, nothing := byName("/signer/key"), byName("/secret"), byName("/token_keys/0"), byName("/rpc/0"), byName("/refund")
	switch {
	case s.secrets[weak].Weak == "", s.secrets[other].Weak != "", s.secrets[rpc].Weak != "", s.secrets[byName("/bearer")].Weak != "", s.secrets[nothing].Problem == "":
		t.Errorf("%+v", s.secrets)
	case s.secrets[other].Print != s.secrets[held].Print, s.secrets[weak].Print == s.secrets[other].Print, s.secrets[held].Exposed != "":
		t.Errorf("%+v", s.secrets)
	}
	text, err := json.Marshal(s.secrets)
	if err != nil || strings.Contains(string(text), strong) || strings.Contains(string(text), "letmein") {
		t.Errorf("%s %v", text, err)
	}
}

// Handlers are found wherever routes have them.
func TestDoctorFindsHandlers(t *testing.T) {
	var found []string
	visitHandlers(json.RawMessage(`{"servers":{"a":{"routes":[{"handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"x402","name":"shop"}]}]},
		{"handler":"x402_service"}]}]}}}`), func(name string, _ json.RawMessage) { found = append(found, name) })
	if want := []string{"subroute", "x402", "x402_service"}; !slices.Equal(found, want) {
		t.Errorf("%v", found)
	}
}

// What is in front of the site may make an offer of its own: the doctor pays nobody but who is configured, and before it signs.
func TestDoctorPaysNobodyElse(t *testing.T) {
	base, _ := x402.LookupNetwork("base")
	asked, offered := 0, common.HexToAddress("0x1000000000000000000000000000000000000001")
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		text, err := json.Marshal(x402.PaymentRequired{X402Version: 2, Accepts: []x402.Requirements{{
			Scheme: "exact", Network: base.ID, PayTo: offered.Hex(), Asset: base.Asset.Address.Hex(), Amount: "10000", MaxTimeoutSeconds: 60,
			Extra: x402.Extra{Name: base.Asset.Name, Version: base.Asset.Version},
		}}})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set(x402.HeaderRequired, base64.StdEncoding.EncodeToString(text))
		w.WriteHeader(http.StatusPaymentRequired)
	}))
	defer site.Close()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{subject: doctor.Subject{Networks: []doctor.Network{{Network: base, PayTo: common.HexToAddress("0x2000000000000000000000000000000000000002")}}}}
	f := doctorFlags{maxAmount: "0.10"}
	out, err := f.buy(t.Context(), p, site.Client(), key, site.URL)
	if err != nil || !strings.Contains(out.Problem, offered.Hex()) || asked != 1 {
		t.Errorf("asked %d times: %+v, %v", asked, out, err)
	}
	p.subject.Networks[0].PayTo = offered
	if out, err = f.buy(t.Context(), p, site.Client(), key, site.URL); err != nil || asked != 3 {
		t.Errorf("who is configured, asked %d times: %+v, %v", asked, out, err)
	}
}
