// Package key0 holds the scenarios of Key0's end-to-end tests as acceptance tests of ours, on every store and a real chain, and those that
// its faults call for. Names of scenes are those of Key0's test files. Where ours behaves otherwise because Key0's way is a fault, the test
// says why.
//
// Not here are, of Key0's 60: token-issuance-failure (1), which needs a remote issuer, and refund-success, refund-batch and refund-failure (3),
// which need refunds that are paid: both are tested beside what they need. What leads there, a payment that can't be delivered and is held for
// refund, is in gateway-proxy and ppr-standalone.
//
// Key0's known faults, and the tests that would catch each. Tests named "ours: …" and by a file's name are scenes of TestKey0.
//
//	W1  the client chooses price and payee        ours: W1; test/e2e TestForgedAccepted, TestForgedTermsThatDoNotMatter
//	W2  refund drain by W1 and a failing backend  ours: W1; test/e2e TestUpstreamFails (held is what was received, for its payer)
//	W3  plan upgrade                              ours: W3; test/e2e TestTokenOpensItsPlanOnly
//	W4  paid routes over A2A and MCP              a2a-jsonrpc-x402: neither is served, nor announced
//	W5  route and path not bound                  ours: W5, W6; test/e2e TestPaymentOpensOneRoute
//	W6  other hosts, and the secret with it       ours: W5, W6; test/e2e TestUpstreamIsNeverReachedUnpaid
//	W7  test endpoints in production              setup-ui
//	W8  reconfiguration by anybody                setup-ui
//	W9  double refund                             with the refunds
//	W10 wrong EIP-712 name on the mainnet         x402 TestOfferBody; caddymodule TestMismatchRefusesTheConfiguration
//	W11 no durable intent                         test/crash TestKilledBetweenEveryTwoSteps; test/e2e TestChainStallsAfterBroadcast, TestLedgerLostAltogether
//	W12 PAID can't be resumed                     ours: W12; test/e2e TestSameHeaderAfterLostConnection, TestFreshSignatureConsumesTheUnservedPayment
//	W13 expiry not enforced                       challenge-timeout, expired-challenge-proof; cancel-challenge
//	W14 a route without step 1 has no record      ours: W14, W18
//	W15 the gas wallet calls what payers say      x402 TestDecodePayloadRefuses; settlement/wallet TestHostileWallets
//	W16 a hash in two spellings                   ledger/storetest (authorizations are compared as bytes); test/e2e TestExecutedBeforeTheClaim
//	W17 one lock over everything                  test/e2e TestTwoHundredPayers; settlement/wallet TestPaymentsTravelTogether, TestQueueIsFair
//	W18 duplicate challenges                      ours: W14, W18
//	W19 concurrent payers of one request id       concurrent-same-challenge
//	W20 the grant to whoever knows the id         already-redeemed
//	W21 the refund index loses payments           ledger/storetest (lifecycle, leases); gateway-proxy, ppr-standalone
//	W22 orphans of refunds                        with the refunds; ledger/storetest (sweep keeps what waits for a refund)
//	W23 refund and delivery at once               paywall TestDeliveryThatWasOvertaken; test/e2e TestClientLeavesWhileUpstreamWorks
//	W24 a failing store counts as redeemed        paywall TestFailureThatTheLedgerKnowsBetter; test/e2e TestStoreUnreachable
//	W25 A2A over HTTP is dead                     a2a-jsonrpc-x402: it says that it is not served
//	W26 no CDP authentication, retries            test/e2e TestFacilitatorOfCoinbase, TestFacilitatorSettledAndLies
//	W27 queries, bodies, streams, headers         gateway-proxy, ours: bodies; test/e2e TestGibibyte, TestWebSocket, TestEventsStream, TestSpoofedHeaders
//	W28 the token API                             with the remote issuers
//	W29 expired is invalid, no aud, no iss        token TestTimes, TestOtherIssuer, TestAttacks; test/e2e TestExpiredToken
//	W30 configurations that can't start           caddymodule TestKey0Catalogue, TestPrices
//	W31 secrets in logs                           test/e2e TestNothingLeaks, TestConfigurationErrorsShowNoSecrets
//	W32 health is always ok                       caddymodule TestServiceHealth
//	W33 Redis without password, database, TLS     test/operator TestOperatorMovesToRedis; caddymodule/stores/redis TestOpen
//	W34 a testnet's endpoint on the mainnet       caddymodule TestMismatchRefusesTheConfiguration
//	W35 no limits                                 ours: W35; test/e2e TestStrangerIsSlowedDown
//	W36 one confirmation, no balances             test/finality; settlement/wallet TestGasFloors
//	W37 an audit trail that can be changed        ledger/postgres (rights); test/operator TestOperatorFindsTampering
//	W38 a committed private key                   none of ours is anybody's: keys of tests are those of development chains
//	W39 a hook that breaks the answer             with the hooks
package key0
