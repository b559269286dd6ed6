package ledger

import (
	"encoding/base32"
	"fmt"
	"io"
)

// idPrefix marks payment ids in logs and URLs.
const idPrefix = "pay_"

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID makes the id of a new payment: "pay_" and 26 characters of lower-case base32 (RFC 4648), 128 bits
// read from random. Whoever knows an id may read the payment's status, so random must be crypto/rand's Reader
// outside of tests.
func NewID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("ledger: making a payment id: %w", err)
	}
	return idPrefix + idEncoding.EncodeToString(b[:]), nil
}
