// Package x402 is the protocol: its objects and headers in versions 1 and 2, the networks, money, the
// EIP-712 digest that payers sign, and the ordered checks of a payment.
//
// The package is pure: it does no I/O and has no clock of its own. What it can't judge (balances,
// signatures of contract wallets, whether a nonce was used) it leaves to the chain, and says so.
//
// The way through it: NewRequirements and NewOfferTemplate make a 402; DecodePayload reads what the
// client sends back; Payload.Identify says who signed; Select finds which of our own requirements is
// meant; Payload.Verify judges it.
package x402
