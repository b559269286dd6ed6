package main

import (
	"fmt"

	"github.com/ethereum/go-ethereum/crypto"
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
		s.code("make demo KEEP=1")
	}
	s.code(fmt.Sprintf(`make build
curl -i %s
export X402_PRIVATE_KEY=0x%x
bin/caddy x402 pay %s`, url, crypto.FromECDSA(hand.Key), url))
	s.say("")
	s.say("The key is that of a well-known development account: on this chain it has play money, elsewhere it must never hold any.")
	if running {
		s.say("")
		s.strong("A Caddyfile of your own can use the same chain. Its gas wallet must be its own:")
		s.say("")
		s.code(fmt.Sprintf("network base-sepolia\nrpc %s\nwallet 0x%x", s.chain.URL(), crypto.FromECDSA(ownGas.Key)))
	}
}
