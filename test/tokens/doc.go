// Package tokens tests what becomes of access tokens while the keys that sign them change, when they are taken back, and when nobody
// can tell whether they were: with several Caddy processes that share one storage and one ledger.
package tokens
