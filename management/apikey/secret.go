package apikey

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/big"
	"strings"
)

// Mode says which networks a key is for.
type Mode string

// The modes.
const (
	Test Mode = "test"
	Live Mode = "live"
)

// Network is the word of X-Network for the mode.
func (m Mode) Network() string {
	if m == Live {
		return "mainnet"
	}
	return "testnet"
}

// The parts of a secret: sk_live_, 32 random bytes, and a checksum of all that comes before it, so that typing errors, and what only looks
// like a key, are known without asking anybody.
const (
	randomBytes  = 32
	randomDigits = 43 // of base 62
	sumDigits    = 6
	prefixLength = 14 // what may be shown of it
	digits       = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// Secret is a key as its holder has it. It prints as its prefix; Reveal gives the whole.
type Secret struct {
	text string
	mode Mode
}

var errMalformed = errors.New("apikey: not a key")

// NewSecret makes a secret of what it reads from random: crypto/rand's Reader outside of tests.
func NewSecret(random io.Reader, m Mode) (Secret, error) {
	var b [randomBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Secret{}, fmt.Errorf("apikey: making a secret: %w", err)
	}
	text := "sk_" + string(m) + "_" + base62(new(big.Int).SetBytes(b[:]), randomDigits)
	return Secret{text + checksum(text), m}, nil
}

// ParseSecret reads what somebody has shown. It says nothing of whether there is such a key.
func ParseSecret(s string) (Secret, error) {
	for _, m := range [...]Mode{Test, Live} {
		body, ok := strings.CutPrefix(s, "sk_"+string(m)+"_")
		if !ok {
			continue
		}
		if len(body) != randomDigits+sumDigits || strings.Trim(body, digits) != "" {
			return Secret{}, errMalformed
		}
		if at := len(s) - sumDigits; checksum(s[:at]) != s[at:] {
			return Secret{}, errMalformed
		}
		return Secret{s, m}, nil
	}
	return Secret{}, errMalformed
}

// Reveal is the secret itself.
func (s Secret) Reveal() string { return s.text }

// Mode is what the secret says that it is for.
func (s Secret) Mode() Mode { return s.mode }

// Prefix is what may be shown of it: its first 14 characters, of which 6 are random.
func (s Secret) Prefix() string { return s.text[:min(len(s.text), prefixLength)] }

// ID is the id of the key. It follows from the secret, so that whoever shows one is found by a single look; nobody gets from it to the
// secret, which is as long as the hash.
func (s Secret) ID() string {
	sum := sha256.Sum256([]byte("x402 api key id\x00" + s.text))
	return idPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// hash is what is kept of it. A slow hash would protect short secrets; this one has 256 bits.
func (s Secret) hash() string {
	sum := sha256.Sum256([]byte(s.text))
	return hex.EncodeToString(sum[:])
}

// String shows the prefix.
func (s Secret) String() string { return s.Prefix() + "…" }

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText refuses: a secret goes nowhere by mistake.
func (s Secret) MarshalText() ([]byte, error) {
	return nil, errors.New("apikey: a secret is not to be encoded")
}

func checksum(text string) string {
	return base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(text)))), sumDigits)
}

func base62(n *big.Int, width int) string {
	text := n.Text(len(digits))
	return strings.Repeat("0", max(0, width-len(text))) + text
}
