// Package ledger is the record of payments: the state machine, the audit trail and the interface of the
// stores that keep them. It knows neither chains nor HTTP.
//
// A payment has three facets (settlement, delivery, refund), each moving one way. Apply is the only
// code that moves them; the stores under this package run it inside their own atomic step.
package ledger
