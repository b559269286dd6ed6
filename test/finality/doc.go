// Package finality tests, through a real Caddy, what is demanded of dear payments, and what becomes of them when blocks are taken back.
package finality
