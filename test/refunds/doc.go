// Package refunds sees what is paid and not delivered come back: through a real Caddy, on a real chain, and with everything killed and cut
// off meanwhile.
//
// The chaos run takes these environment variables; `make refund-chaos` runs it for longer, on every store:
//
//	REFUNDS_SECONDS  how long things break (5)
//	REFUNDS_STORE    sqlite, postgres, redis, several of them with commas between, or all (sqlite)
//	REFUNDS_SEED     what decides who does what; when it happens depends on the machine too
//	REFUNDS_DIR      where logs are kept; without it they are kept, in a temporary folder, if the test fails
package refunds
