// Package token makes and checks the JSON Web Tokens of the paywall (RFC 7519, hardened as RFC 8725 says).
//
// There are two kinds. An access token is what the buyer of a plan gets: it opens the gate. An assertion tells the
// upstream who paid for one request: it opens nothing, and a verifier of access tokens never takes one. They differ
// in the typ header and in the audience, and each [Verifier] knows a single kind. Beside these, [Issuer.Service] tells the seller's own
// services who is asking them; nothing here takes such a token.
//
// Keys live in a [Keyring], which says itself when each begins to sign and ends to verify. A key knows its one algorithm; the
// token's own header only has to agree with it. Other secrets of the paywall are derived from the key that signs: see [Keyring.MAC] and
// [Keyring.Seal]. What was taken back is in a [Revoked].
package token
