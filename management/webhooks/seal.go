package webhooks

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Keys seal the secrets of endpoints, which must be read again to sign and so can't be hashed: AES-256-GCM, under keys that are derived
// from secrets of the configuration by HKDF-SHA-256. The first one seals; all of them open, so that it can be replaced: the new one is listed
// first, and the old one until everything was sealed anew, which a running Service does by itself.
type Keys struct {
	list []sealingKey
}

type sealingKey struct {
	id   string
	aead cipher.AEAD
}

// MinKeyBytes is how long a secret must be that Keys are made of.
const MinKeyBytes = 32

const sealVersion = "v1"

var errUnsealed = errors.New("webhooks: a secret was sealed by a key that the configuration no longer has, or was changed")

// NewKeys makes Keys of at least one secret. Errors never show one.
func NewKeys(secrets ...string) (*Keys, error) {
	if len(secrets) == 0 {
		return nil, errors.New("a key is missing")
	}
	k := new(Keys)
	for i, s := range secrets {
		if len(s) < MinKeyBytes {
			return nil, fmt.Errorf("key %d is shorter than %d bytes; make one with `openssl rand -base64 32`", i+1, MinKeyBytes)
		}
		id, err := hkdf.Key(sha256.New, []byte(s), nil, "caddy-x402 webhook secrets: name of the key", 4)
		if err != nil {
			return nil, fmt.Errorf("deriving the name of key %d: %w", i+1, err)
		}
		derived, err := hkdf.Key(sha256.New, []byte(s), nil, "caddy-x402 webhook secrets: AES-256-GCM", 32)
		if err != nil {
			return nil, fmt.Errorf("deriving key %d: %w", i+1, err)
		}
		block, err := aes.NewCipher(derived)
		if err != nil {
			return nil, fmt.Errorf("making key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("making key %d: %w", i+1, err)
		}
		k.list = append(k.list, sealingKey{hex.EncodeToString(id), aead})
	}
	return k, nil
}

// seal encrypts secret for its owner, an endpoint: nobody can give it to another one.
func (k *Keys) seal(secret, owner string) string {
	first := k.list[0]
	sealed := first.aead.Seal(nil, nil, []byte(secret), []byte(sealVersion+" "+owner)) //nolint:gosec // the nonce is random: NewGCMWithRandomNonce takes none
	return sealVersion + "." + first.id + "." + base64.RawURLEncoding.EncodeToString(sealed)
}

// open gives what seal was given.
func (k *Keys) open(sealed, owner string) (string, error) {
	version, rest, _ := strings.Cut(sealed, ".")
	id, text, _ := strings.Cut(rest, ".")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if k == nil || version != sealVersion || err != nil {
		return "", errUnsealed
	}
	for _, key := range k.list {
		if key.id != id {
			continue
		}
		if secret, err := key.aead.Open(nil, nil, b, []byte(sealVersion+" "+owner)); err == nil {
			return string(secret), nil
		}
	}
	return "", errUnsealed
}

// stale reports whether sealed was sealed by another key than the one that seals now.
func (k *Keys) stale(sealed string) bool {
	return !strings.HasPrefix(sealed, sealVersion+"."+k.list[0].id+".")
}
