// Package webhooks watches what a seller's system is told, by a receiver of other people's.
package webhooks
