package caddymodule_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

const doctorConfig = `{
	storage file_system {dir}/storage
	log default {
		format x402_redact
	}
	x402 {
		network base
		pay_to {pay_to}
		rpc https://one.test.net https://two.test.net
		wallet {env.T_DOCTOR_GAS}
		refund {env.T_DOCTOR_REFUND}
		store sqlite {dir}/ledger.db
		public_url https://shop.test.net
		webhook https://books.test.net/hook {
			secret {env.T_DOCTOR_HOOK}
			mode live
		}
	}
}
https://shop.test.net {
	x402 {
		name shop
		price $0.01
		rate_limit payer 1000 1m
	}
	x402_service
	x402_management {
		path /ops
		key_max_age 90d
	}
	reverse_proxy localhost:9000
}
`

// shownToDoctor is a configuration for real money, with all that can be seen in it as it must be, and what must not be shown of it.
func shownToDoctor(t *testing.T) (text string, secrets []string) {
	t.Helper()
	set := func(name, value string) {
		t.Setenv(name, value)
		secrets = append(secrets, value)
	}
	for _, name := range []string{"T_DOCTOR_GAS", "T_DOCTOR_REFUND"} {
		key, err := crypto.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		set(name, hex.EncodeToString(crypto.FromECDSA(key)))
	}
	set("T_DOCTOR_HOOK", webhooks.NewSecret())
	set("T_DOCTOR_WEAK", strings.Repeat("ab", 32))
	return strings.NewReplacer("{dir}", t.TempDir(), "{pay_to}", payTo).Replace(doctorConfig), secrets
}

// doctorNames runs the doctor, and gives the items that are not as they should be.
func doctorNames(t *testing.T, text string, secrets []string, args ...string) string {
	t.Helper()
	args = append([]string{"--json", "--adapter", "caddyfile", "--config", doctorFile(t, "Caddyfile", text)}, args...)
	code, out, errOut := caddymodule.RunDoctor(t, args...)
	for _, secret := range secrets {
		if strings.Contains(out+errOut, secret) {
			t.Error("it shows a secret")
		}
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Items) != len(doctor.Items()) {
		t.Fatalf("%d %v\n%s%s", code, err, out, errOut)
	}
	var broken []string
	for _, i := range r.Items {
		if i.Status == doctor.Fail || i.Status == doctor.Warn {
			broken = append(broken, i.ID)
			t.Logf("%s %s: %s", i.Status, i.ID, i.Found)
		}
	}
	if want := map[bool]int{true: 0, false: 5}[len(r.Failed()) == 0]; code != want || r.OK != (code == 0) {
		t.Errorf("code %d, ok %t", code, r.OK)
	}
	return strings.Join(broken, " ")
}

func doctorFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What is wrong in a configuration is named, and nothing beside it but what is wrong by the same mistake.
func TestChecklistOfConfigurations(t *testing.T) {
	text, secrets := shownToDoctor(t)
	if got := doctorNames(t, text, secrets); got != "" {
		t.Errorf("it names %s where nothing is wrong", got)
	}
	named := map[string]bool{}
	open := doctorFile(t, "key", os.Getenv("T_DOCTOR_GAS"))
	if err := os.Chmod(open, 0o644); err != nil { // that is the mistake
		t.Fatal(err)
	}
	key, err := crypto.HexToECDSA(os.Getenv("T_DOCTOR_GAS"))
	if err != nil {
		t.Fatal(err)
	}
	gas := crypto.PubkeyToAddress(key.PublicKey).Hex()
	terms := text[strings.Index(text, "pay_to"):strings.Index(text, "refund {")]
	deployment, alerts := doctorFile(t, "Dockerfile", "FROM caddy:latest\n"), doctorFile(t, "alerts.yml", "groups: []\n")
	for _, c := range []struct {
		what, old, new, want string
		args                 []string
	}{
		{"no certificate", "x402_service", "x402_service\ntls /nowhere/cert.pem /nowhere/key.pem", "config.sound", nil},
		{"a literal key", "{env.T_DOCTOR_GAS}", os.Getenv("T_DOCTOR_GAS"), "config.sound secrets.literal", nil},
		{"a provider's key", "https://one.test.net", "https://one.test.net/v2/a8Xk29sLq03mVb71Zc5pTr44", "secrets.literal", nil},
		{"a key that is missing", "{env.T_DOCTOR_GAS}", "{env.T_DOCTOR_NOTHING}", "config.sound secrets.set", nil},
		{"a file for all", "{env.T_DOCTOR_GAS}", "{file." + open + "}", "secrets.set", nil},
		{"a weak key", "{env.T_DOCTOR_GAS}", "{env.T_DOCTOR_WEAK}", "secrets.strong", nil},
		{"an open log", "format x402_redact", "", "secrets.logs", nil},
		{"test money", "network base\n\t\t" + terms, "network base {\n" + terms + "\n}\nnetwork base-sepolia {\n" + terms + "\n}\n", "network.kind", nil},
		{"another name", "pay_to ", "asset 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 {\nname USDC\nversion 2\ndecimals 6\n}\npay_to ", "network.asset", nil},
		{"one endpoint", "https://two.test.net", "", "network.endpoints", nil},
		{"nobody pays", "wallet {env.T_DOCTOR_GAS}", "", "config.sound settlement.mode", nil},
		{"one wallet", "refund {env.T_DOCTOR_REFUND}", "refund {env.T_DOCTOR_GAS}", "config.sound wallet.apart", nil},
		{"earnings on a server", payTo, gas, "wallet.apart", nil},
		{"one wallet by signers", "refund {env.T_DOCTOR_REFUND}", "refund {\nsigner key {env.T_DOCTOR_GAS}\n}", "wallet.apart", nil},
		{"no refunds", "refund {env.T_DOCTOR_REFUND}", "refunds off", "refund.on", nil},
		{"impatience", "refund {env.T_DOCTOR_REFUND}", "refund {env.T_DOCTOR_REFUND} {\n min_age 20s\n}", "refund.min_age", nil},
		{"in memory", "store sqlite ", "store sqlite /dev/shm", "store.durable", nil},
		{"two instances", "name shop", "name shop", "store.shared", []string{"--instances", "2"}},
		{"a short memory", "pay_to ", "retention 72h\npay_to ", "audit.kept", nil},
		{"a dear price", "price $0.01", "price $20000.00", "prices.sane", nil},
		{"no keys of requests", "name shop", "name shop\nidempotency off", "idempotency.on", nil},
		{"no limit", "rate_limit payer 1000 1m", "", "limits.on", nil},
		{"keys for ever", "key_max_age 90d", "", "apikeys.rotation", nil},
		{"no address", "public_url https", "public_url http", "public_url.set", nil},
		{"no health", "x402_service", "", "health.on", nil},
		{"no pages", "name shop", "name shop\ncors off", "cors.on", nil},
		{"nobody hears of it", "secret {env.T_DOCTOR_HOOK}", "secret {env.T_DOCTOR_HOOK}\nevents apikey.*", "webhooks.endpoint events.told", nil},
		{"no books", "secret {env.T_DOCTOR_HOOK}", "secret {env.T_DOCTOR_HOOK}\nevents payment.refunded", "events.told", nil},
		{"no secret of its own", "public_url", "webhook https://test.test.net/hook {\nsecret {env.T_DOCTOR_HOOK}\nmode test\n}\npublic_url", "webhooks.apart", nil},
		{"no metrics", "storage ", "admin off\nstorage ", "metrics.on", nil},
		{"no alerts", "name shop", "name shop", "alerts.rules", []string{"--alerts", alerts}},
		{"any version", "name shop", "name shop", "image.pinned", []string{"--deployment", deployment}},
	} {
		t.Run(c.what, func(t *testing.T) {
			if !strings.Contains(text, c.old) {
				t.Fatalf("nothing says %q", c.old)
			}
			if got := doctorNames(t, strings.Replace(text, c.old, c.new, 1), secrets, c.args...); got != c.want {
				t.Errorf("it names %q, and %q is wrong", got, c.want)
			}
			for id := range strings.FieldsSeq(c.want) {
				named[id] = true
			}
		})
	}
	for _, i := range doctor.Items() {
		if i.Depth == doctor.Config && !named[i.ID] {
			t.Errorf("nothing has broken %s", i.ID)
		}
	}
}
