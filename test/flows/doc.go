// Package flows holds the end-to-end tests of the flows in which the upstream is asked before the money moves.
package flows
