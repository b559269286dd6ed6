// Package management holds the tests of the management API through a real Caddy: with keys from the command line, over payments that were
// really made.
package management
