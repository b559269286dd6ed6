// Package management is the operator's side of the paywall: the management API. It knows no Caddy: an API is an http.Handler that is given,
// for each request, the Shop it looks after.
//
// Every operation is in the OpenAPI document that is generated from the code, with the scope that it needs. A request goes this way: it
// is authenticated, X-Network is judged against the key and against the networks of the configuration, the scope is looked at, an
// Idempotency-Key is taken, what changes something is written into the audit, and then the operation runs.
package management
