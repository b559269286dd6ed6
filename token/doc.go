// Package token makes and checks the JSON Web Tokens of the paywall (RFC 7519, hardened as RFC 8725 says).
//
// There are two kinds. An access token is what the buyer of a plan gets: it opens the gate. An assertion tells the
// upstream who paid for one request: it opens nothing, and a verifier of access tokens never takes one. They differ
// in the typ header and in the audience, and each [Verifier] knows a single kind.
//
// Keys live in a [Keyring]: one signs, others may still verify until a given time. A key knows its one algorithm; the
// token's own header only has to agree with it.
package token
