// Package caddyx402 is the import path for xcaddy: it registers every module of this repository with Caddy, and holds
// no logic.
//
//	xcaddy build --with github.com/caddy-x402/caddy-x402
//
// The modules turn any HTTP API behind Caddy into one that is paid for by x402 payments in USDC: the app x402, the
// handlers http.handlers.x402, http.handlers.x402_service and http.handlers.x402_facilitator with their Caddyfile directives,
// the stores x402.stores.*, settlers x402.settlers.* and signers x402.signers.*, and the log encoder
// caddy.logging.encoders.x402_redact.
package caddyx402

import (
	// The modules register themselves when they are imported.
	_ "github.com/caddy-x402/caddy-x402/caddymodule"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/settlers/facilitator"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/settlers/wallet"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/signers/kms"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/signers/local"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/postgres"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/redis"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/sqlite"
)
