// Package client is a paying HTTP client: it sends a request and, where the answer is 402, reads the
// offer, signs one EIP-3009 authorization within the caller's limits and sends the same request again with
// it. Both versions of x402 are spoken.
//
// Money first: what is paid for is bounded by Client.Limits and nothing is assumed beyond them; one call
// signs at most one authorization; while the outcome is not known the same payment header is sent again,
// byte for byte, never a new one; and no payment header leaves for another host than the one that was asked.
package client
