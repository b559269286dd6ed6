// Package v1 lets the stock client of x402 version 1 pay through our Caddy: the tests with the build tag interop_v1,
// which need Node.js >= 20 with npm, and 800 MB for npm's packages.
package v1
