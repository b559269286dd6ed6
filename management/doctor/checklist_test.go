package doctor_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/management/doctor"
)

// The page for people lists the same items, and says the same of them.
func TestGoingLiveListsTheItems(t *testing.T) {
	page := read(t, "../../docs/going-live.md")
	listed := regexp.MustCompile("(?m)^\\| `[a-z_.]+` \\|.*$").FindAllString(page, -1)
	var want []string
	needs := map[doctor.Depth]string{doctor.Live: "`--live`", doctor.Pay: "`--pay`"}
	for _, i := range doctor.Items() {
		want = append(want, "| `"+i.ID+"` | "+i.Title+" | "+needs[i.Depth]+" | "+i.Do+" |")
		if i.Title == "" || i.Why == "" || i.Do == "" {
			t.Errorf("%s says too little", i.ID)
		}
	}
	for k, row := range want {
		if !slices.Contains(listed, row) {
			t.Errorf("docs/going-live.md does not have, as row %d,\n%s", k+1, row)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("docs/going-live.md lists %d items, and there are %d", len(listed), len(want))
	}
}

// The alerts and documents that are named are there.
func TestWhatIsSaidToBeDoneCanBeDone(t *testing.T) {
	rules := read(t, "../../deploy/observe/alerts.yml")
	for _, i := range doctor.Items() {
		for _, alert := range regexp.MustCompile(`\bX402[A-Z][A-Za-z]+`).FindAllString(i.Do, -1) {
			if !strings.Contains(rules, "alert: "+alert+"\n") {
				t.Errorf("%s: there is no alert %s", i.ID, alert)
			}
		}
		for _, page := range regexp.MustCompile(`\b[a-z]+\.md`).FindAllString(i.Do, -1) {
			read(t, "../../docs/"+page)
		}
	}
}

// checklists are those of Blockchain0x and of Key0, point by point, with the items that look at each.
var checklists = map[string][]string{
	"Blockchain0x: live key in a secret manager, none in source":         {"secrets.literal", "secrets.set", "apikeys.live", "network.kind"},
	"Blockchain0x: key rotation scheduled":                               {"apikeys.rotation", "apikeys.age"},
	"Blockchain0x: production webhook registered, signatures verified":   {"webhooks.endpoint", "webhooks.apart", "webhooks.verified"},
	"Blockchain0x: Idempotency-Key on every payment":                     {"idempotency.on"},
	"Blockchain0x: 429 and Retry-After":                                  {"limits.on", "limits.told"},
	"Blockchain0x: X-Network consistent with the live key":               {"network.kind", "network.chain", "apikeys.live"},
	"Key0, security 1: secrets of 32 random characters":                  {"secrets.strong"},
	"Key0, security 1: a dedicated gas wallet, with just enough ether":   {"wallet.apart", "wallet.gas"},
	"Key0, security 1: the refund wallet's key in a secrets manager":     {"secrets.literal", "secrets.set"},
	"Key0, security 2: no private keys in logs":                          {"secrets.logs"},
	"Key0, security 3: public HTTPS address":                             {"public_url.set", "public_url.reached", "public_url.told"},
	"Key0, security 4: TLS":                                              {"public_url.set", "public_url.reached"},
	"Key0, network 1: mainnet":                                           {"network.kind", "network.chain"},
	"Key0, network 2: USDC's address":                                    {"network.asset", "network.token"},
	"Key0, network 3: wallets are funded":                                {"wallet.gas", "refund.wallet", "wallet.allowed"},
	"Key0, network 4: plans are priced for mainnet":                      {"prices.sane"},
	"Key0, infrastructure 1: stores that outlive a restart":              {"store.durable", "store.writes"},
	"Key0, infrastructure 2: health checks":                              {"health.on", "health.ok"},
	"Key0, infrastructure 3: image versions are pinned":                  {"image.pinned"},
	"Key0, infrastructure 4: all instances share the stores":             {"store.shared"},
	"Key0, settlement 1: the mode is chosen":                             {"settlement.mode"},
	"Key0, settlement 2: the gas wallet's balance is watched":            {"wallet.gas", "alerts.rules"},
	"Key0, settlement 3: a payment on the whole path":                    {"settlement.path"},
	"Key0, refunds 1: refunds are on":                                    {"refund.on"},
	"Key0, refunds 2: a grace period that is long enough":                {"refund.min_age"},
	"Key0, refunds 3: REFUND_FAILED is watched":                          {"refund.states", "alerts.rules"},
	"Key0, observability 1: the audit trail is durable":                  {"store.durable", "audit.kept"},
	"Key0, observability 2: payments are told as they come":              {"events.told"},
	"Key0, observability 3: INTERNAL_ERROR and TOKEN_ISSUE_TIMEOUT":      {"alerts.rules"},
	"Key0, observability 4: the distribution of states":                  {"refund.states", "metrics.on", "metrics.read"},
	"Key0, deployment 1: all that is required is set":                    {"config.sound", "secrets.set"},
	"Key0, deployment 2: headers survive the proxy":                      {"headers.pass"},
	"Key0, deployment 3: CORS":                                           {"cors.on", "cors.answers"},
	"clocks, and endpoints of the chain, which neither of them mentions": {"clock", "network.endpoints"},
}

// No point of either checklist is left out, and there is no item without one.
func TestTheChecklistsAreCovered(t *testing.T) {
	covered := map[string]bool{}
	for point, ids := range checklists {
		for _, id := range ids {
			covered[id] = true
			if !slices.ContainsFunc(doctor.Items(), func(i doctor.Item) bool { return i.ID == id }) {
				t.Errorf("%s: there is no item %s", point, id)
			}
		}
	}
	for _, i := range doctor.Items() {
		if !covered[i.ID] {
			t.Errorf("%s is on no checklist", i.ID)
		}
	}
}
