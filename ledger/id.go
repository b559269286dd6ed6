package ledger

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"io"
	"strings"

	"github.com/ethereum/go-ethereum/common"
)

// idPrefix marks payment ids in logs and URLs.
const idPrefix = "pay_"

// shardLength is how many characters of an id say whose payment it is.
const shardLength = 2

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID makes the id of a new payment of payer: "pay_", the two characters of Shard, and 26 characters of lower-case
// base32 (RFC 4648), 128 bits read from random. Whoever knows an id may read the payment's status, so random must be
// crypto/rand's Reader outside of tests.
func NewID(random io.Reader, payer common.Address) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("ledger: making a payment id: %w", err)
	}
	return idPrefix + Shard(payer) + idEncoding.EncodeToString(b[:]), nil
}

// Shard is what the ids of all payments of payer begin with, after "pay_": two characters of base32, 10 bits of the
// SHA-256 of the address. So a store that is spread over several servers finds a payment by its id, and has all
// payments of a payer, with their authorizations, in one place.
func Shard(payer common.Address) string {
	h := sha256.Sum256(payer[:])
	return idEncoding.EncodeToString(h[:2])[:shardLength]
}

// ShardOf is the Shard in a payment's id; ok is false if there is none.
func ShardOf(id string) (shard string, ok bool) {
	rest, ok := strings.CutPrefix(id, idPrefix)
	if !ok || len(rest) <= shardLength {
		return "", false
	}
	return rest[:shardLength], true
}
