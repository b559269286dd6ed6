// Package chain is the way to an EVM chain: several JSON-RPC endpoints that stand in for one another, and
// one watcher of the head that all who wait for receipts share.
//
// Reads are judged by their endpoint's head: an endpoint that is behind the highest head seen, or behind a
// block that holds a transaction of ours, is passed over, since its silence would be taken for an answer.
// Endpoints are named by host alone, in logs and errors: their URLs may hold keys.
package chain
