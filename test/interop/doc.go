// Package interop lets other people's x402 clients pay through our Caddy: the tests with the build tag interop, which
// need Node.js >= 20 with npm. The client of protocol version 1 brings many packages; it stands in the folder v1, under
// the build tag interop_v1.
package interop
