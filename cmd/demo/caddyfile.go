package main

import (
	"path/filepath"
	"strings"
)

// gasKeyVariable is where the Caddyfile finds the key of the wallet that pays for gas.
const gasKeyVariable = "GAS_WALLET_PRIVATE_KEY"

// What is sold, as the Caddyfile says it.
const (
	price     = "0.01"
	plan      = "day"
	planPrice = "1.00"
)

// shop is the seller's whole configuration.
const shop = `{
	admin {admin}
	auto_https off
	persist_config off
	storage file_system {dir}/storage
	log default {
		output file {log}
		format x402_redact
	}

	x402 {
		network base-sepolia
		pay_to {seller}
		rpc {rpc}
		wallet {env.GAS_WALLET_PRIVATE_KEY}
		refunds off
		store sqlite {ledger}
		public_url http://{site}
		webhooks {
			allow_private
		}
	}
}

http://{site} {
	bind 127.0.0.1
	log
	x402 /weather/* $0.01 {
		description "The weather of a city"
		mime_type application/json
		rate_limit payer 100 1m
		plan day $1.00 {
			ttl 24h
		}
	}
	x402_service
	reverse_proxy {upstream}
}

http://{ops} {
	bind 127.0.0.1
	x402_management {
		key_max_age 90d
	}
}
`

func caddyfileOf(s *stage) string {
	return strings.NewReplacer(
		"{dir}", filepath.ToSlash(s.dir), "{ledger}", filepath.ToSlash(s.ledgerFile()), "{log}", filepath.ToSlash(s.logFile()),
		"{seller}", seller.Hex(), "{rpc}", s.wire.url(), "{site}", s.addr, "{ops}", s.ops, "{admin}", s.admin, "{upstream}", s.upstream.addr(),
	).Replace(shop)
}
