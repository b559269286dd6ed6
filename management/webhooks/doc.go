// Package webhooks tells a seller's own systems what has happened, by the Standard Webhooks specification
// (https://www.standardwebhooks.com): signed requests to endpoints that the configuration or the management API names.
//
// What is to be told comes from an Outbox, which forgets nothing: the ledger's audit trail, written in one step with what it tells of. A
// relay turns each event into one delivery for each endpoint that wants it, under an id that follows from both, and only then moves its
// cursor. A sender attempts the deliveries that are due until the endpoint has answered 2xx or the schedule is at its end. Every step
// is a compare-and-set on an object of the ledger, so that several instances share the work and whatever dies leaves nothing behind
// but a lease that runs out: each event arrives at least once, under an id that never changes.
package webhooks
