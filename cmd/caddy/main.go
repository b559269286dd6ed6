// Command caddy is Caddy with its standard modules and those of this repository: what xcaddy builds, for those who have
// the sources at hand.
package main

import (
	_ "time/tzdata" // zones for log timestamps, where the system has none

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-x402/caddy-x402"
)

func main() {
	caddycmd.Main()
}
