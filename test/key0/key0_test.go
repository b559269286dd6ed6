package key0

import (
	"testing"

	"github.com/caddy-x402/caddy-x402/test/stores"
)

type scene struct {
	file string
	run  func(*testing.T, *shop)
}

// scenes are the scenarios of Key0's end-to-end tests, by the names of their files, and what these miss. What is behind a file's name is how
// many of its tests a scene is.
var scenes = []scene{
	{"agent-card 2", agentCard},
	{"x402-discovery 4", discovery},
	{"invalid-tier 2", invalidTier},
	{"a2a-jsonrpc-x402 4", jsonRPC},
	{"happy-path 3", happyPath},
	{"happy-path-state-verification 1", happyPathStates},
	{"idempotent-challenge 2", idempotentChallenge},
	{"cancel-challenge 2", cancelChallenge},
	{"challenge-timeout 1, expired-challenge-proof 2", expiry},
	{"expired-authorization 1, wrong-amount 1, wrong-recipient 1, malformed-signature 3", badPayments},
	{"double-spend 1", doubleSpend},
	{"already-redeemed 2", alreadyRedeemed},
	{"concurrent-purchases 1", concurrentPurchases},
	{"concurrent-same-challenge 1", concurrentSameChallenge},
	{"token-issuance-failure 1", tokenIssuanceFailure},
	{"refund-success 1, refund-batch 1, refund-failure 1", refunds},
	{"gateway-proxy 5", gatewayProxy},
	{"ppr-standalone 6", pprStandalone},
	{"gateway-proxy 1, ppr-standalone 1", pprFailures},
	{"ppr-embedded 5", pprEmbedded},
	{"setup-ui 4", setupUI},

	{"ours: documents", documents},
	{"ours: bodies", bodies},
	{"ours: W1", forgedAccepted},
	{"ours: W3", planUpgrade},
	{"ours: W5, W6", foreignPaths},
	{"ours: W12", resumed},
	{"ours: W14, W18", oneChallenge},
	{"ours: W39", brokenSubscriber},
	{"ours: clients that know no request ids", stockClient},
	{"ours: one price for everything", onePrice},
	{"ours: pages of other sites", crossSite},
	{"ours: long requests", longRequests},
	{"ours: W35", strangers}, // last: it uses up what one address may ask
}

// TestKey0 runs all scenes on every store.
func TestKey0(t *testing.T) {
	for store, begin := range stores.All {
		t.Run(store, func(t *testing.T) {
			s := newShop(t, begin(t, t.TempDir()).Caddyfile)
			for _, scene := range scenes {
				t.Run(scene.file, func(t *testing.T) { scene.run(t, s) })
			}
		})
	}
}
