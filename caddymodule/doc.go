// Package caddymodule is all that knows Caddy: the app "x402", the handlers, their Caddyfile directives, the log
// encoder and the commands. What it decides about is configuration and life cycle; how a request is paid for is
// the business of package paywall.
package caddymodule
