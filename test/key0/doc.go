// Package key0 holds the scenarios of Key0's 60 end-to-end tests as acceptance tests of ours, on every store and a real chain, and those that
// its faults call for. Names of scenes are those of Key0's test files. Where ours behaves otherwise because Key0's way is a fault, the test
// says why. TestDeployment runs what deploy/key0 has for who comes from there.
//
// Key0's known faults, and the tests that would catch each. What is quoted is a scene of TestKey0; TestFaultsAreTested reads this table.
//
//	W1  the client chooses price and payee        "ours: W1"; test/e2e TestForgedAccepted, TestForgedTermsThatDoNotMatter
//	W2  refund drain by W1 and a failing backend  "ours: W1"; test/refunds TestRefunds (PaidBack); paywall TestRefundsAreExact (what was received, to who paid)
//	W3  plan upgrade                              "ours: W3", "ours: one price for everything"; test/e2e TestPaymentBuysOneThing, TestTokenOpensItsPlanOnly
//	W4  paid routes over A2A and MCP              "a2a-jsonrpc-x402", "setup-ui" (neither is served, nor takes money)
//	W5  route and path not bound                  "ours: W5, W6", "ours: one price for everything"; test/e2e TestPaymentOpensOneRoute
//	W6  other hosts, and the secret with it       "ours: W5, W6"; test/e2e TestUpstreamIsNeverReachedUnpaid
//	W7  test endpoints in production              "setup-ui"
//	W8  reconfiguration by anybody                "setup-ui"
//	W9  double refund                             paywall TestRefundsAreExact, TestRefundsOfARestoredLedger, TestRefundByAStranger; test/refunds TestChaos, TestRefunds (RestoredLedger)
//	W10 wrong EIP-712 name on the mainnet         x402 TestSeparatorsOfKnownNetworks; caddymodule TestMismatchRefusesTheConfiguration
//	W11 no durable intent                         test/crash TestKilledBetweenEveryTwoSteps; test/e2e TestChainStallsAfterBroadcast, TestLedgerLostAltogether
//	W12 PAID can't be resumed                     "ours: W12", "token-issuance-failure"; test/e2e TestSameHeaderAfterLostConnection, TestFreshSignatureConsumesTheUnservedPayment
//	W13 expiry not enforced                       "challenge-timeout", "expired-challenge-proof", "cancel-challenge"
//	W14 a route without step 1 has no record      "ours: W14, W18"
//	W15 the gas wallet calls what payers say      x402 TestDecodePayloadRefuses; settlement/wallet TestHostileWallets
//	W16 a hash in two spellings                   "double-spend"; test/e2e TestExecutedBeforeTheClaim (no transfer of before pays)
//	W17 one lock over everything                  test/e2e TestTwoHundredPayers; settlement/wallet TestPaymentsTravelTogether, TestQueueIsFair, TestStuckTransactionIsReplaced
//	W18 duplicate challenges                      "ours: W14, W18"
//	W19 concurrent payers of one request id       "concurrent-same-challenge"
//	W20 the grant to whoever knows the id         "already-redeemed"
//	W21 the refund index loses payments           "refund-success", "refund-batch"; ledger/sqlite, ledger/postgres, ledger/redis TestSuite (Lease, Refunds)
//	W22 orphans of refunds                        "refund-failure"; paywall TestRefundsAreExact; test/refunds TestChaos, TestRefunds (the operator has one tried again); ledger/redis TestSuite (SweepPayments)
//	W23 refund and delivery at once               paywall TestDeliveryThatWasOvertaken, TestNeverBothCredentialAndRefund, TestDeliveredIsNeverRefunded; test/e2e TestClientLeavesWhileUpstreamWorks
//	W24 a failing store counts as redeemed        paywall TestFailureThatTheLedgerKnowsBetter; test/e2e TestStoreUnreachable
//	W25 A2A over HTTP is dead                     "a2a-jsonrpc-x402" (it says that it is not served)
//	W26 no CDP authentication, retries            test/e2e TestFacilitatorOfCoinbase, TestFacilitatorSettledAndLies
//	W27 queries, bodies, streams, headers         "gateway-proxy", "ours: bodies"; TestDeployment; test/e2e TestGibibyte, TestWebSocket, TestEventsStream, TestSpoofedHeaders
//	W28 the token API                             "token-issuance-failure"; token/remote TestTries, TestFieldsNeverOverride; test/issuers TestCredentialOfTheSeller, TestEndpointThatFails; test/crash TestKilledWhileIssuing
//	W29 expired is invalid, no aud, no iss        token TestTimes, TestOtherIssuer, TestAttacks; test/e2e TestExpiredToken
//	W30 configurations that can't start           caddymodule TestKey0Catalogue, TestKey0Environment, TestPrices
//	W31 secrets in logs                           test/e2e TestNothingLeaks, TestConfigurationErrorsShowNoSecrets; TestDeployment
//	W32 health is always ok                       caddymodule TestServiceHealth
//	W33 Redis without password, database, TLS     ledger/redis TestUser, TestDatabase, TestTLS
//	W34 a testnet's endpoint on the mainnet       caddymodule TestMismatchRefusesTheConfiguration
//	W35 no limits                                 "ours: W35"; test/e2e TestStrangerIsSlowedDown; paywall TestRefundBatches
//	W36 one confirmation, no balances             test/finality TestReorganizedAfterItWasServed, TestSafe; settlement/wallet TestGasFloors; test/refunds TestRefunds (WalletOfItsOwn)
//	W37 an audit trail that can be changed        ledger/postgres TestTheTrailOnlyGrows, TestManyStartAtOnce; test/operator TestOperatorFindsTampering
//	W38 a committed private key                   no test: keys of tests are those of development chains, and of nobody
//	W39 a hook that breaks the answer             "ours: W39"; test/issuers TestEvents
package key0
