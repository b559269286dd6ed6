package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	minRSABits = 2048
	// Verification with larger keys costs more than the safety it adds.
	maxRSABits = 8192
)

// Key signs and verifies with one algorithm, which follows from what the key is: Ed25519 is EdDSA, P-256 is ES256,
// RSA is RS256, a secret is HS256. Printing a Key shows its id and algorithm, never what it is made of.
type Key struct {
	id     string
	method jwt.SigningMethod
	sign   any // nil: the key only verifies
	verify any

	created time.Time     // zero: not known
	from    time.Time     // when it begins to sign; zero: at once
	until   time.Time     // when it ends to verify; zero: never
	longest time.Duration // the life of the longest token that it signs; 0: not known
	root    []byte        // of what is derived from the key; nil where only its public half is known
}

// ID is the key's kid: for a public key its RFC 7638 thumbprint.
func (k Key) ID() string { return k.id }

// Algorithm is the key's alg (RFC 7518 section 3.1).
func (k Key) Algorithm() string {
	if k.method == nil {
		return ""
	}
	return k.method.Alg()
}

// Retired is k as a key that signs no more and verifies until the given time: when the last token that it signed
// has expired.
func (k Key) Retired(until time.Time) Key {
	k.sign, k.until = nil, until
	return k
}

// expired reports whether k verifies no more.
func (k Key) expired(now time.Time) bool { return !k.until.IsZero() && !now.Before(k.until) }

// String is the key's algorithm and id.
func (k Key) String() string { return k.Algorithm() + " " + k.id }

// Format prints String for every verb, so that no %+v shows a secret.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// GenerateKey makes an Ed25519 key from 32 bytes of random.
func GenerateKey(random io.Reader) (Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return Key{}, fmt.Errorf("reading randomness for the token key: %w", err)
	}
	return newKey(ed25519.NewKeyFromSeed(seed))
}

// MarshalPEM encodes a private key as PKCS #8 PEM, which ParseKey takes back.
func (k Key) MarshalPEM() ([]byte, error) {
	if k.sign == nil || k.isSecret() {
		return nil, errors.New("only a private key can be written as PEM")
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.sign)
	if err != nil {
		return nil, fmt.Errorf("encoding the token key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// isSecret reports whether k is a shared secret, which has no public half.
func (k Key) isSecret() bool {
	_, secret := k.verify.([]byte)
	return secret
}

// ParseKey reads an operator's own key: a private key in PEM (Ed25519, P-256, or RSA of at least 2048 bits; PKCS #8,
// SEC 1 or PKCS #1), or else a secret for HS256, whose bytes count as they stand, without line ends after them.
// A secret is refused if it is shorter than 32 bytes, can be guessed, or is somebody's public key.
func ParseKey(data []byte) (Key, error) {
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return parsePEM(data)
	}
	if err := refusePublic(data); err != nil { // whose last byte may look like a line end
		return Key{}, err
	}
	secret := bytes.TrimRight(data, "\r\n")
	if err := checkSecret(secret); err != nil {
		return Key{}, err
	}
	return newKey(bytes.Clone(secret))
}

func parsePEM(data []byte) (Key, error) {
	var private any
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return Key{}, errors.New("the token key is broken PEM: an incomplete block, or text around it")
		}
		if block.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes it before the key
			continue
		}
		if private != nil {
			return Key{}, errors.New("the token key's PEM must hold one private key and nothing else")
		}
		var err error
		if private, err = parsePrivate(block); err != nil {
			return Key{}, err
		}
	}
	if private == nil {
		return Key{}, errors.New("the token key's PEM holds no private key")
	}
	return newKey(private)
}

func parsePrivate(block *pem.Block) (key any, err error) {
	switch {
	case block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the token key is encrypted; decrypt it first: openssl pkey -in FILE -out FILE")
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("the token key must be a private key, this is a %s", strings.ToLower(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the token key: %w", err)
	}
	return key, nil
}

// newKey pins the algorithm to what the key is.
func newKey(key any) (Key, error) {
	k := Key{sign: key}
	var err error
	if k.root, err = rootOf(key); err != nil && !errors.Is(err, errNoRoot) {
		return Key{}, err
	}
	switch p := key.(type) {
	case ed25519.PrivateKey:
		k.method, k.verify = jwt.SigningMethodEdDSA, p.Public()
	case *ecdsa.PrivateKey:
		k.method, k.verify = jwt.SigningMethodES256, p.Public()
	case *rsa.PrivateKey:
		k.method, k.verify = jwt.SigningMethodRS256, p.Public()
	case []byte:
		k.method, k.verify = jwt.SigningMethodHS256, p
		k.id = secretID(p)
		return k, nil
	default:
		return Key{}, fmt.Errorf("a %T cannot sign tokens: use Ed25519, P-256 or RSA", key)
	}
	k.id, err = thumbprint(k.verify)
	return k, err
}

// newPublicKey is a key that can only verify.
func newPublicKey(public crypto.PublicKey) (Key, error) {
	k := Key{verify: public}
	switch public.(type) {
	case ed25519.PublicKey:
		k.method = jwt.SigningMethodEdDSA
	case *ecdsa.PublicKey:
		k.method = jwt.SigningMethodES256
	case *rsa.PublicKey:
		k.method = jwt.SigningMethodRS256
	}
	var err error
	k.id, err = thumbprint(public)
	return k, err
}

// thumbprint is the RFC 7638 name of a public key: a hash over its required JWK members in alphabetical order.
func thumbprint(public crypto.PublicKey) (string, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	var members any
	switch p := public.(type) {
	case ed25519.PublicKey:
		members = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
		}{"Ed25519", "OKP", b64(p)}
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return "", fmt.Errorf("an elliptic token key must be on P-256, this one is on %s", p.Params().Name)
		}
		point, err := p.Bytes() // 4, x, y (SEC 1 section 2.3.3)
		if err != nil {
			return "", fmt.Errorf("reading the token key: %w", err)
		}
		members = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{"P-256", "EC", b64(point[1:33]), b64(point[33:])}
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < minRSABits || n > maxRSABits {
			return "", fmt.Errorf("an RSA token key must have %d to %d bits, this one has %d", minRSABits, maxRSABits, n)
		}
		e := []byte{byte(p.E >> 24), byte(p.E >> 16), byte(p.E >> 8), byte(p.E)}
		members = struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{b64(bytes.TrimLeft(e, "\x00")), "RSA", b64(p.N.Bytes())}
	default:
		return "", fmt.Errorf("a %T cannot verify tokens", public)
	}
	b, err := json.Marshal(members)
	if err != nil {
		return "", fmt.Errorf("naming the token key: %w", err)
	}
	sum := sha256.Sum256(b)
	return b64(sum[:]), nil
}

// secretID names a secret without giving more away than any token signed with it does.
func secretID(secret []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("caddy-x402 key id"))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}
