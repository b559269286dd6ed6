// Package operator tests what an operator does with a running shop and its ledger, through the front door: the commands, in
// processes of their own, and Caddy's admin endpoint.
package operator
