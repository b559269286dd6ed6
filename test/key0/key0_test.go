package key0

import (
	"testing"
)

// TestKey0 runs the scenarios of Key0's end-to-end tests, by the names of their files, and what these miss, on every store. What is behind
// a file's name is the number of its tests.
func TestKey0(t *testing.T) {
	for store, start := range stores {
		t.Run(store, func(t *testing.T) {
			s := newShop(t, start(t))
			for _, scene := range []struct {
				file string
				run  func(*testing.T, *shop)
			}{
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
				{"gateway-proxy 6", gatewayProxy},
				{"ppr-standalone 7", pprStandalone},
				{"gateway-proxy 6, ppr-standalone 5", pprFailures},
				{"ppr-embedded 5", pprEmbedded},
				{"setup-ui 4", setupUI},

				{"ours: documents", documents},
				{"ours: bodies", bodies},
				{"ours: W1", forgedAccepted},
				{"ours: W3", planUpgrade},
				{"ours: W5, W6", foreignPaths},
				{"ours: W12", resumed},
				{"ours: W14, W18", oneChallenge},
				{"ours: clients that know no request ids", stockClient},
				{"ours: pages of other sites", crossSite},
				{"ours: long requests", longRequests},
				{"ours: W35", strangers}, // last: it uses up what one address may ask
			} {
				t.Run(scene.file, func(t *testing.T) { scene.run(t, s) })
			}
		})
	}
}
