// Package cdp shows the facilitator of the Coinbase Developer Platform who we are: each request carries a JWT that is good
// for its method and address alone, and for two minutes.
package cdp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// URL is the facilitator's address.
const URL = "https://api.cdp.coinbase.com/platform/v2/x402"

// ttl is how long a token is good. It must not be longer; a clock that is wrong by as much is refused.
const ttl = 120 * time.Second

// Key is an API key of the platform.
type Key struct {
	id     string
	secret crypto.Signer
	method jwt.SigningMethod
	now    func() time.Time
}

// Errors of NewKey. None shows the secret.
var (
	ErrID     = errors.New("cdp: the key's id is missing")
	ErrSecret = errors.New("cdp: the key's secret is neither the base64 of an Ed25519 key (64 bytes) nor an EC key of P-256 in PEM")
)

// NewKey reads a key as the platform gives it out: secret is the base64 of an Ed25519 key, seed and public half, or
// an EC key in PEM (SEC 1 or PKCS #8), whose line breaks may be written as \n. now is the clock; time.Now if nil.
func NewKey(id, secret string, now func() time.Time) (*Key, error) {
	if id = strings.TrimSpace(id); id == "" {
		return nil, ErrID
	}
	if now == nil {
		now = time.Now
	}
	k := &Key{id: id, now: now}
	secret = strings.TrimSpace(strings.ReplaceAll(secret, `\n`, "\n"))
	var ok bool
	if strings.HasPrefix(secret, "-----BEGIN ") {
		ok = k.readPEM([]byte(secret))
	} else {
		ok = k.readBase64(secret)
	}
	if !ok {
		return nil, ErrSecret // a cause could quote the secret
	}
	return k, nil
}

func (k *Key) readBase64(secret string) bool {
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil || len(raw) != ed25519.PrivateKeySize {
		return false
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	k.secret, k.method = key, jwt.SigningMethodEdDSA
	return key.Equal(ed25519.PrivateKey(raw)) // else it was cut or mistyped
}

func (k *Key) readPEM(secret []byte) bool {
	block, _ := pem.Decode(secret)
	if block == nil {
		return false
	}
	var key any
	var err error
	if block.Type == "EC PRIVATE KEY" {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return false
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		k.secret, k.method = key, jwt.SigningMethodES256
		return key.Curve == elliptic.P256()
	case ed25519.PrivateKey:
		k.secret, k.method = key, jwt.SigningMethodEdDSA
		return true
	}
	return false
}

// Authorize implements facilitator.Authorizer.
func (k *Key) Authorize(r *http.Request) error {
	token, err := k.token(r.Method, r.URL.Host, r.URL.EscapedPath())
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Correlation-Context", "sdk_language=go,source=caddy-x402")
	return nil
}

// token makes the JWT for one method and address, which is named without its scheme.
func (k *Key) token(method, host, path string) (string, error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return "", fmt.Errorf("cdp: making a nonce: %w", err)
	}
	now := k.now()
	t := jwt.NewWithClaims(k.method, jwt.MapClaims{
		"sub":  k.id,
		"iss":  "cdp",
		"aud":  []string{"cdp_service"},
		"iat":  now.Unix(),
		"nbf":  now.Unix(),
		"exp":  now.Add(ttl).Unix(),
		"uris": []string{method + " " + host + path},
	})
	t.Header["kid"], t.Header["nonce"] = k.id, hex.EncodeToString(nonce[:])
	signed, err := t.SignedString(k.secret)
	if err != nil {
		return "", fmt.Errorf("cdp: signing a token: %w", err)
	}
	return signed, nil
}
