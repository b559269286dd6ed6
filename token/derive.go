package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"time"
)

// What instances of one paywall share and nobody else knows is the token keys. Other secrets are derived from them (HKDF, RFC 5869),
// each for its own purpose, so that none says anything of a token key or of another.

const (
	rootBytes   = 32
	derivedRoot = "caddy-x402 derivation root"
	derivedKey  = "caddy-x402 derived "

	sealedForm = 1
)

// ErrSealed is what can't be opened: it was changed, belongs elsewhere, or was sealed under a key that is not in the ring any more.
var ErrSealed = errors.New("sealed data can't be opened")

// errNoRoot: the key signs nothing, so nothing can be derived from it.
var errNoRoot = errors.New("nothing can be derived from a public key")

// rootOf is what other secrets are derived from where key signs; it does not lead back to the key.
func rootOf(key any) ([]byte, error) {
	var material []byte
	switch p := key.(type) {
	case ed25519.PrivateKey:
		material = p.Seed()
	case *ecdsa.PrivateKey:
		var err error
		if material, err = p.Bytes(); err != nil {
			return nil, fmt.Errorf("reading the token key: %w", err)
		}
	case *rsa.PrivateKey:
		material = p.D.Bytes()
	case []byte:
		material = p
	default:
		return nil, errNoRoot
	}
	return hkdf.Key(sha256.New, material, nil, derivedRoot, rootBytes)
}

// derive is the key's secret for a purpose; nil if it has none, since only its public half is known.
func (k Key) derive(purpose string) []byte {
	if k.root == nil {
		return nil
	}
	secret, err := hkdf.Expand(sha256.New, k.root, derivedKey+purpose, rootBytes)
	if err != nil { // 32 bytes are never too many
		return nil
	}
	return secret
}

// MAC authenticates data for a purpose (HMAC-SHA-256), with a secret that is derived from the key that signs at now.
func (r *Keyring) MAC(purpose string, data []byte, now time.Time) []byte {
	return mac(r.SigningKey(now).derive(purpose), data)
}

// CheckMAC reports whether mac is the MAC of data for that purpose, by a key of the ring that is in use at now: one that signs no more still
// counts, and one that was ended does not, since it may have been stolen.
func (r *Keyring) CheckMAC(purpose string, data, sum []byte, now time.Time) bool {
	for _, k := range r.keys.Load().keys {
		if k.expired(now) {
			continue
		}
		if secret := k.derive(purpose); secret != nil && hmac.Equal(mac(secret, data), sum) {
			return true
		}
	}
	return false
}

func mac(secret, data []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(data)
	return h.Sum(nil)
}

// Seal encrypts plain for a purpose (AES-256-GCM), under a secret that is derived from the key that signs at now. What it belongs to
// must be said again to open it.
func (r *Keyring) Seal(purpose, belongs string, plain []byte, now time.Time) ([]byte, error) {
	k := r.SigningKey(now)
	box, err := k.box(purpose)
	if err != nil {
		return nil, err
	}
	if len(k.id) > math.MaxUint8 {
		return nil, fmt.Errorf("sealing: the key id %q is too long", k.id)
	}
	out := append([]byte{sealedForm, byte(len(k.id))}, k.id...)
	nonce := make([]byte, box.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return box.Seal(append(out, nonce...), nonce, plain, []byte(belongs)), nil
}

// Open decrypts what Seal made for the same purpose, and says belongs to the same. Every other error is ErrSealed.
func (r *Keyring) Open(purpose, belongs string, sealed []byte) ([]byte, error) {
	if len(sealed) < 2 || sealed[0] != sealedForm || len(sealed) < 2+int(sealed[1]) {
		return nil, ErrSealed
	}
	id, rest := sealed[2:2+int(sealed[1])], sealed[2+int(sealed[1]):]
	k, ok := r.keys.Load().byID[string(id)]
	if !ok {
		return nil, ErrSealed
	}
	box, err := k.box(purpose)
	if err != nil || len(rest) < box.NonceSize() {
		return nil, ErrSealed
	}
	plain, err := box.Open(nil, rest[:box.NonceSize()], rest[box.NonceSize():], []byte(belongs))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

func (k Key) box(purpose string) (cipher.AEAD, error) {
	secret := k.derive(purpose)
	if secret == nil {
		return nil, errNoRoot
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return cipher.NewGCM(block)
}
