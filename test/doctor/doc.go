// Package doctor watches caddy x402 doctor at a shop that is sound, and at what it says when something of it is broken.
package doctor
