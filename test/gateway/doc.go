// Package gateway tests x402_facilitator: that others can settle through us, and what they can't do to us.
package gateway
