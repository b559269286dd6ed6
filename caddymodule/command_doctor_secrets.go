package caddymodule

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// The names of the fields of this module's parts that hold secrets: those that a seller makes, and those that others have made, whose strength is
// theirs to see to. Those of addresses may hold one.
var (
	ownFields     = []string{"keys", "refund", "token_keys", "secrets", "secret"}
	givenFields   = []string{"bearer", "key_secret", "client_secret", "secret_access_key", "session_token"}
	addressFields = []string{"rpc", "url", "migrate_url", "token_url"}
)

// secretShaped finds what is a secret wherever it stands: keys of ours, secrets of webhooks, private keys in hex and PEM.
var secretShaped = regexp.MustCompile(`sk_(?:live|test)_[0-9A-Za-z]{20,}|whsec_[0-9A-Za-z+/=]{24,}|-----BEGIN [A-Z ]*PRIVATE KEY|^(?:0[xX])?[0-9a-fA-F]{64}$`)

// credential finds the headers of facilitators that hold secrets, by their names.
var credential = regexp.MustCompile(`(?i)auth|key|token|secret`)

// keyInPath finds the key of a provider's customer in an address, such as https://base-mainnet.example/v2/<key>.
var keyInPath = regexp.MustCompile(`^[0-9A-Za-z_-]{24,}$`)

// secretScan finds secrets in a configuration, and what placeholders of secrets stand for. It keeps none.
type secretScan struct {
	literals []string
	secrets  []doctor.Secret
	salt     string
}

func newSecretScan() *secretScan { return &secretScan{salt: rand.Text()} }

// shaped looks at a whole configuration. What TLS is configured with holds hashes and public keys.
func (s *secretScan) shaped(path string, v any) {
	walkTexts(path, "", v, func(path, _, text string) {
		if !isPlaceholder(text) && secretShaped.MatchString(text) {
			s.literal(path)
		}
	})
}

// fields looks at a part of this module's.
func (s *secretScan) fields(path string, v any) {
	walkTexts(path, "", v, func(path, field, text string) {
		switch {
		case text == "" || field == "refund" && text == refundOff:
		case slices.Contains(ownFields, field) && isPlaceholder(text):
			s.read(path, text, true)
		case slices.Contains(ownFields, field), slices.Contains(givenFields, field) && !isPlaceholder(text):
			s.literal(path)
		case (slices.Contains(addressFields, field) || slices.Contains(givenFields, field)) && isPlaceholder(text):
			s.read(path, text, false)
		case slices.Contains(addressFields, field) && addressHolds(text):
			s.literal(path)
		}
	})
}

func (s *secretScan) literal(path string) {
	if !slices.Contains(s.literals, path) {
		s.literals = append(s.literals, path)
	}
}

// addressHolds reports whether a secret stands in an address.
func addressHolds(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	if p, ok := u.User.Password(); ok && !strings.HasPrefix(p, "{") {
		return true
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		if keyInPath.MatchString(part) && strings.ContainsAny(part, "0123456789") {
			return true
		}
	}
	for _, name := range [...]string{"apikey", "api_key", "key", "token", "password"} {
		if v := u.Query().Get(name); v != "" && !strings.HasPrefix(v, "{") {
			return true
		}
	}
	return false
}

// read looks at what a placeholder stands for. What can be guessed, or is used twice, is told of a seller's own secrets.
func (s *secretScan) read(path, placeholder string, own bool) {
	x := doctor.Secret{Name: path, Placeholder: placeholderName(placeholder)}
	value, err := resolve(path, placeholder)
	switch {
	case err != nil:
		x.Problem = "the placeholder " + x.Placeholder + " gives nothing"
	case value == "":
		x.Problem = "the placeholder " + x.Placeholder + " is empty"
	case own:
		x.Weak = weakness(value)
		x.Print = fingerprint(s.salt, strings.ToLower(strings.TrimPrefix(value, "0x")))
	}
	if name, ok := strings.CutPrefix(strings.Trim(placeholder, "{}"), "file."); ok && x.Problem == "" {
		if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o007 != 0 {
			x.Exposed = fmt.Sprintf("everybody on the machine may get at its file %s (mode %#o)", name, info.Mode().Perm())
		}
	}
	s.secrets = append(s.secrets, x)
}

// fingerprint tells secrets from one another, for who has the salt, and not what they are.
func fingerprint(salt, secret string) string {
	h := sha256.Sum256([]byte(salt + secret))
	return hex.EncodeToString(h[:8])
}

// weakness knows the forms that are made by machines, and are judged by their makers.
func weakness(value string) string {
	switch {
	case strings.HasPrefix(value, "whsec_"):
		if err := webhooks.CheckSecret(value); err != nil {
			return "is no secret of webhooks: " + err.Error()
		}
		return ""
	case strings.HasPrefix(value, "-----BEGIN"), strings.HasPrefix(value, "{"):
		return ""
	}
	return doctor.Weakness(value)
}

// walkTexts visits all texts of a JSON value, each with its path and the name of the field that it, or the list that it is in, has.
func walkTexts(path, field string, v any, visit func(path, field, text string)) {
	switch v := v.(type) {
	case string:
		visit(path, field, v)
	case []any:
		for i, e := range v {
			walkTexts(fmt.Sprintf("%s/%d", path, i), field, e, visit)
		}
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			as := name
			switch {
			case name == "key" && v["signer"] == "key":
				as = "keys" // of a wallet
			case field == "headers" && credential.MatchString(name):
				as = "bearer"
			}
			walkTexts(path+"/"+name, as, v[name], visit)
		}
	}
}
