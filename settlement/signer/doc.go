// Package signer makes the signatures of wallets: with a key in this process (Local), or, in the packages below it, with one
// that a service keeps and never gives away.
//
// Every signer has the methods
//
//	Address() common.Address
//	Sign(ctx context.Context, digest common.Hash) (signature []byte, err error)
//
// whose signature is 65 bytes, r ‖ s ‖ v, with v 0 or 1 and s in the lower half of the curve's order (EIP-2), and was found
// to be one of Address. A service gives neither the one nor the other: FromDER makes it so.
package signer
