package token

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// Whatever comes in, Verify gives one of its errors or claims that our key signed; and what it takes once it takes again.
func FuzzVerify(f *testing.F) {
	ed, err := GenerateKey(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		f.Fatal(err)
	}
	hs := parsed(f, []byte(goodSecret))
	ring := ringOf(f, ed, hs)
	good := issue(f, ring, Access, sale(), time.Hour)
	f.Add(good)
	f.Add(issue(f, ringOf(f, hs), Access, sale(), time.Hour))
	f.Add(issue(f, ring, Assertion, sale(), time.Hour))
	f.Add(strings.ToLower(good))
	f.Add(good[:len(good)-1])
	f.Add("e30.e30.")
	f.Add(b64(`{"alg":"none","kid":"`+ed.ID()+`","typ":"at+jwt"}`) + ".e30.")
	f.Add(b64(`{"alg":"HS256","kid":"`+ed.ID()+`","typ":"at+jwt"}`) + ".e30.AAAA")
	f.Fuzz(func(t *testing.T, tok string) {
		v := verifier(t, ring, Access, 64)
		c, err := v.Verify(tok, start)
		if err == nil {
			if c.ID != "pay_1" || c.X402 != sale().X402 {
				t.Fatalf("forged: %q gives %+v", tok, c)
			}
			if again, err := v.Verify(tok, start); err != nil || again != c {
				t.Fatalf("not taken again: %v", err)
			}
			return
		}
		if c != nil {
			t.Fatalf("claims with an error: %+v", c)
		}
		for _, known := range []error{
			ErrMalformed, ErrUnknownKey, ErrWrongKind, ErrBadSignature, ErrWrongAudience, ErrNotYetValid, ErrExpired,
		} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Fatalf("%q gives an error without a class: %v", tok, err)
	})
}

// A key file comes from the operator, who may point at anything.
func FuzzParseKey(f *testing.F) {
	for _, k := range everyKey(f) {
		if data, err := k.MarshalPEM(); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte(goodSecret))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKey(data)
		if err != nil {
			return
		}
		ring := ringOf(t, k)
		tok := issue(t, ring, Access, sale(), time.Hour)
		if _, err := verifier(t, ring, Access, 64).Verify(tok, start); err != nil {
			t.Fatalf("%v signs what it doesn't verify: %v", k, err)
		}
	})
}
