// Package limits tests rate limits and consumers' keys: from outside, over several instances, with a chain that says what was charged.
package limits
