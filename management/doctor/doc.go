// Package doctor looks at what a seller is about to go live with: the configuration, and on request the chain, the ledger, the endpoints and a
// payment. Each thing that must be right is an item with a name, which says why it matters and what to do; docs/going-live.md lists the same
// items. It knows no Caddy: whoever asks it has read the configuration into a Subject.
package doctor
