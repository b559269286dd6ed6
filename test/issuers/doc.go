// Package issuers tests, through the front door, what the seller's own endpoints have a say in: the credentials of plans and the prices of
// requests; and who is told of payments.
package issuers
