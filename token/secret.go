package token

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

const (
	minSecret = 32
	maxSecret = 4 << 10
	// What a random secret never has less of: 32 random hexadecimal digits have fewer than 9 different ones three
	// times in a million.
	minDistinct = 9
	// How many bytes of a secret must not follow from those before them.
	minUnpredictable = 24
)

const makeSecret = "make one with: openssl rand -base64 32"

// guessable are the words that people put into secrets.
var guessable = []string{
	"password", "passwort", "passphrase", "secret", "changeme", "change", "replace", "insert", "please", "default",
	"example", "sample", "admin", "letmein", "welcome", "qwerty", "asdf", "zxcv", "token", "signing", "signature",
	"private", "production", "staging", "development", "test", "demo", "caddy", "x402", "super", "your", "this", "that",
	"with", "should", "must", "very", "long", "secure", "random", "string", "bytes", "least", "characters", "here",
	"only", "local", "shared", "master", "server", "client", "service", "company", "hmac", "sha256", "hs256", "jwt",
	"key", "abc", "the", "and", "not", "for",
}

// commonPairs are the letter pairs that make up about half of English text, and a thirteenth of random letters.
const commonPairs = " th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le" +
	" ve co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur "

// checkSecret refuses what can be guessed, and what others may know.
func checkSecret(secret []byte) error {
	if len(secret) < minSecret {
		return fmt.Errorf("a token secret needs at least %d bytes, this one has %d; %s", minSecret, len(secret), makeSecret)
	}
	if len(secret) > maxSecret {
		return fmt.Errorf("a token secret may have up to %d bytes, this one has %d; %s", maxSecret, len(secret), makeSecret)
	}
	if err := refusePublic(secret); err != nil {
		return err
	}
	text := string(secret)
	switch {
	case distinct(secret) < minDistinct, strings.Trim(text, "0123456789") == "":
		return fmt.Errorf("the token secret uses too few different characters; %s", makeSecret)
	case unpredictable(secret) < minUnpredictable:
		return fmt.Errorf("the token secret repeats itself or counts up; %s", makeSecret)
	case unpredictable(withoutWords(text)) < minUnpredictable,
		unpredictable(withoutWords(unleet.Replace(lower(text)))) < minUnpredictable, prose(text):
		return fmt.Errorf("the token secret is made of words; %s", makeSecret)
	}
	return nil
}

// refusePublic stops a public key from being used as a secret (RFC 8725 section 2.1): everybody could sign with it.
func refusePublic(secret []byte) error {
	err := errors.New("the token secret is a key in another format; give a private key in PEM, or " + makeSecret)
	if bytes.HasPrefix(secret, []byte("ssh-")) || bytes.HasPrefix(secret, []byte("ecdsa-sha2-")) ||
		bytes.Contains(secret, []byte(`"kty"`)) {
		return err
	}
	if _, e := x509.ParsePKIXPublicKey(secret); e == nil {
		return err
	}
	if _, e := x509.ParsePKCS1PublicKey(secret); e == nil {
		return err
	}
	if _, e := x509.ParseCertificate(secret); e == nil {
		return err
	}
	return nil
}

func distinct(b []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

// unpredictable counts the bytes of b that neither continue a sequence (aaaa, abcd, 4321) nor stand where a repetition of
// what came before puts them.
func unpredictable(b []byte) int {
	n := 0
	for i := range b {
		if i >= 2 {
			d, before := int(b[i])-int(b[i-1]), int(b[i-1])-int(b[i-2])
			if d == before && d >= -1 && d <= 1 {
				continue
			}
		}
		if i >= 3 && bytes.Contains(b[:i], b[i-3:i+1]) {
			continue
		}
		n++
	}
	return n
}

// lower lowers letters of ASCII only: a secret may be any bytes, and each must stay where it is.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// unleet undoes the usual spelling of letters as digits.
var unleet = strings.NewReplacer("0", "o", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i")

// withoutWords leaves one byte of each guessable word.
func withoutWords(s string) []byte {
	s = lower(s)
	for _, w := range guessable {
		s = strings.ReplaceAll(s, w, w[:1])
	}
	return []byte(s)
}

// prose reports whether s reads like language: words of one case, divided by whatever, of pairs that language has.
func prose(s string) bool {
	var upper, letters, pairs, common int
	low := lower(s)
	for i := range len(low) {
		c := low[i]
		if c >= '0' && c <= '9' && i < len(low)-4 {
			return false // digits within, not only a year at the end
		}
		if c < 'a' || c > 'z' {
			continue
		}
		letters++
		if s[i] != c {
			upper++
		}
		if i > 0 && low[i-1] >= 'a' && low[i-1] <= 'z' {
			pairs++
			if strings.Contains(commonPairs, " "+low[i-1:i+1]+" ") {
				common++
			}
		}
	}
	mixed := upper*5 > letters && upper < letters
	return pairs >= 16 && common*4 >= pairs && !mixed
}
