// Package apikey keeps the keys with which operators and their programs sign in to the management API, and by which consumers may be known.
//
// A key is bound to a mode, test or live, and with it to one kind of network. Its secret is shown once, when it is made; the ledger's store
// keeps a hash. A key holds scopes, and whoever makes or rotates a key with another gives it no more than that one has.
package apikey
