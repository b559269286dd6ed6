package doctor

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

const payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

const mainnet = `{
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

// onMainnet is a configuration for real money, with all that can be seen in it as it must be.
func onMainnet(t *testing.T) *patient {
	t.Helper()
	p := &patient{named: map[string]bool{}}
	for _, name := range []string{"T_DOCTOR_GAS", "T_DOCTOR_REFUND"} {
		key, err := crypto.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		p.setenv(t, name, hex.EncodeToString(crypto.FromECDSA(key)))
	}
	p.setenv(t, "T_DOCTOR_HOOK", webhooks.NewSecret())
	p.setenv(t, "T_DOCTOR_WEAK", strings.Repeat("ab", 32))
	p.text = strings.NewReplacer("{dir}", t.TempDir(), "{pay_to}", payTo).Replace(mainnet)
	return p
}

// What is wrong in a configuration is named, and nothing beside it but what is wrong by the same mistake.
func TestTheDoctorReadsConfigurations(t *testing.T) {
	p := onMainnet(t)
	p.sees(t, p.text, "")
	open := write(t, "key", os.Getenv("T_DOCTOR_GAS"))
	if err := os.Chmod(open, 0o644); err != nil { // that is the mistake
		t.Fatal(err)
	}
	key, err := crypto.HexToECDSA(os.Getenv("T_DOCTOR_GAS"))
	if err != nil {
		t.Fatal(err)
	}
	gas := crypto.PubkeyToAddress(key.PublicKey).Hex()
	terms := p.text[strings.Index(p.text, "pay_to"):strings.Index(p.text, "refund {")]
	deployment, alerts := write(t, "Dockerfile", "FROM caddy:latest\n"), write(t, "alerts.yml", "groups: []\n")
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
			if !strings.Contains(p.text, c.old) {
				t.Fatalf("nothing says %q", c.old)
			}
			p.sees(t, strings.Replace(p.text, c.old, c.new, 1), c.want, c.args...)
		})
	}
	p.all(t, doctor.Config)
}
