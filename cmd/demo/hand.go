package main

import (
	"fmt"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// byHand says how to go on without the demo's client.
func (s *story) byHand(running bool) {
	url := "http://ADDRESS" + paidPath
	s.say("")
	if running {
		url = s.url(paidPath)
		s.strong("Everything stays open until Ctrl-C. Pay by hand, in another terminal:")
	} else {
		s.strong("To keep it running, and pay by hand at the address that it shows:")
	}
	s.say("")
	if !running {
		s.code("make demo KEEP=1   # and a dashboard to sign in to")
	}
	s.code(fmt.Sprintf(`make build
curl -i %s
export X402_PRIVATE_KEY=0x%x
bin/caddy x402 pay %s`, url, crypto.FromECDSA(hand.Key), url))
	s.say("")
	s.say("The key is that of a well-known development account: on this chain it has play money, elsewhere it must never hold any.")
	if running {
		s.lookAfter()
		s.say("")
		s.strong("A Caddyfile of your own can use the same chain. Its gas wallet must be its own:")
		s.say("")
		s.code(fmt.Sprintf("network base-sepolia\npay_to %s\nrpc %s\nwallet 0x%x\nrefunds off", devnet.Developer(4).Address, s.chain.URL(), crypto.FromECDSA(ownGas.Key)))
	}
}

// lookAfter says what the seller can do.
func (s *story) lookAfter() {
	s.say("")
	s.strong("Look after the shop, as its seller:")
	s.say("")
	s.field("dashboard", "%s", s.dashboard())
	s.field("sign in with", "%s", s.key)
	s.say("")
	s.code(fmt.Sprintf(`export SHOP=%s
export %s=0x%x
bin/caddy x402 apikeys create --label me --config $SHOP     # a key of your own
bin/caddy x402 payments list --config $SHOP
export X402_WEBHOOK_SECRET=$(bin/caddy x402 webhooks add http://127.0.0.1:4402/ --config $SHOP)
bin/caddy x402 webhooks listen                              # then pay in another terminal
bin/caddy x402 doctor --live --config $SHOP --url %s
curl http://%s/metrics`,
		s.caddyfileFile(), gasKeyVariable, crypto.FromECDSA(gas.Key), s.url(paidPath), s.admin))
	s.say("")
	s.say("The doctor says what this shop lacks for real money: refunds are off, and a receiver of webhooks that does not listen is told, too.")
}
