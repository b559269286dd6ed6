package caddymodule

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/crypto"
)

// resolve replaces placeholders such as {env.NAME} and {file.PATH}. Unlike Caddy's own replacing, one that gives nothing
// is an error: an empty secret is worse than none. The error names the placeholder, never a value.
func resolve(what, value string) (string, error) {
	if value == "" {
		return "", fmt.Errorf("%s is missing", what)
	}
	out, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: the placeholder %s gives nothing; set it and try again", what, placeholderName(value))
	}
	return strings.TrimSpace(out), nil
}

// placeholderName shows a placeholder, and hides what is none: a secret in braces, or a key where the name of its
// variable should be.
func placeholderName(value string) string {
	if isPlaceholder(value) && strings.Contains(value, ".") && !keyLike.MatchString(value) {
		return value
	}
	return "in it"
}

// keyLike finds what may be a private key, or most of one.
var keyLike = regexp.MustCompile(`[0-9a-fA-F]{48}`)

func isPlaceholder(value string) bool {
	return strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") && strings.Count(value, "{") == 1
}

// errLiteralKey refuses a key that everybody who sees the configuration could use.
var errLiteralKey = errors.New("a private key must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path}")

// privateKey reads a secp256k1 key in hex. A literal one is accepted on the local chain only.
func privateKey(what, value string, literal bool) (*ecdsa.PrivateKey, error) {
	if !literal && !isPlaceholder(value) {
		return nil, fmt.Errorf("%s: %w", what, errLiteralKey)
	}
	hex, err := resolve(what, value)
	if err != nil {
		return nil, err
	}
	key, err := crypto.HexToECDSA(strings.TrimPrefix(hex, "0x"))
	if err != nil {
		// The cause may quote the key.
		return nil, fmt.Errorf("%s is not a private key; it must be 64 hexadecimal digits, with or without 0x", what)
	}
	return key, nil
}

// PrivateKey reads the secp256k1 key that a placeholder of the configuration stands for, in hex. what names it in errors,
// which never show it. literal allows one that stands in the configuration itself, for a local chain.
func PrivateKey(what, value string, literal bool) (*ecdsa.PrivateKey, error) {
	return privateKey(what, value, literal)
}

const refundOff = "off"

// localOnly reports whether every network is a test network, whose RPC endpoints are on this machine.
func (a *App) localOnly() bool {
	for _, n := range a.Networks {
		if !n.local() {
			return false
		}
	}
	return true
}

// ErrLiteralPassword refuses a password that everybody who sees the configuration could use.
var ErrLiteralPassword = errors.New("a password must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path} for it, or for the whole URL")

var placeholders = regexp.MustCompile(`\{[^{}]*\}`)

// ServerURL resolves the placeholders in the address of a store's server, for store modules. written is what stands in the
// configuration itself: value with the mark in place of each placeholder. Errors never show a value.
func ServerURL(what, value, mark string) (url, written string, err error) {
	if url, err = caddy.NewReplacer().ReplaceOrErr(value, true, true); err != nil {
		// The cause names the placeholder alone, unless a secret stands in braces; better not.
		return "", "", fmt.Errorf("%s: a placeholder in it gives nothing; set it and try again", what)
	}
	return strings.TrimSpace(url), placeholders.ReplaceAllString(value, mark), nil
}

var errLiteralSecret = errors.New("a secret must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path}")

// Secret reads what a placeholder of the configuration stands for, for guest modules; there must be something. what names it in
// errors, which never show it. literal allows one that stands in the configuration itself, for a local chain.
func Secret(what, value string, literal bool) (string, error) {
	if !literal && value != "" && !isPlaceholder(value) {
		return "", fmt.Errorf("%s: %w", what, errLiteralSecret)
	}
	secret, err := resolve(what, value)
	if err == nil && secret == "" {
		err = fmt.Errorf("%s is empty", what)
	}
	return secret, err
}

// Resolve replaces the placeholders in what is no secret, for guest modules. One that gives nothing is an error.
func Resolve(what, value string) (string, error) { return resolve(what, value) }
