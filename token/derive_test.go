package token

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// What was sealed opens for the same purpose and the same thing only, also when its key signs no more; and not when that has gone.
func TestSeal(t *testing.T) {
	for alg, k := range everyKey(t) {
		t.Run(alg, func(t *testing.T) {
			ring := ringOf(t, k)
			sealed, err := ring.Seal("credential", "pay_1", []byte("hello"), start)
			if err != nil || bytes.Contains(sealed, []byte("hello")) {
				t.Fatalf("%q %v", sealed, err)
			}
			opens := func(what string, r *Keyring, purpose, belongs string, sealed []byte, want error) {
				t.Helper()
				plain, err := r.Open(purpose, belongs, sealed)
				if !errors.Is(err, want) || want == nil && string(plain) != "hello" {
					t.Errorf("%s: %q %v", what, plain, err)
				}
			}
			opens("as it was sealed", ring, "credential", "pay_1", sealed, nil)
			opens("for another purpose", ring, "quote", "pay_1", sealed, ErrSealed)
			opens("of another payment", ring, "credential", "pay_2", sealed, ErrSealed)
			opens("elsewhere", ringOf(t, edKey(t)), "credential", "pay_1", sealed, ErrSealed)
			for i := range sealed {
				changed := bytes.Clone(sealed)
				changed[i] ^= 1
				opens("changed", ring, "credential", "pay_1", changed, ErrSealed)
				opens("cut off", ring, "credential", "pay_1", sealed[:i], ErrSealed)
			}
			again, err := ring.Seal("credential", "pay_1", []byte("hello"), start)
			if err != nil || bytes.Equal(again, sealed) {
				t.Error("sealed twice, it is the same")
			}
			opens("when its key signs no more", ringOf(t, edKey(t), k.Retired(start.Add(time.Hour))), "credential", "pay_1", sealed, nil)
			opens("when its key has gone", ringOf(t, edKey(t)), "credential", "pay_1", sealed, ErrSealed)
			if k.isSecret() {
				return
			}
			stored, err := marshalKeys([]Key{edKey(t), k.Retired(start.Add(time.Hour))})
			if err != nil {
				t.Fatal(err)
			}
			read, err := unmarshalKeyring(stored)
			if err != nil {
				t.Fatal(err)
			}
			opens("when its key signs no more, from storage", read, "credential", "pay_1", sealed, nil)
		})
	}
}

// Two keys have nothing in common that is derived from them, nor have two purposes; and what is derived says nothing of the key's own use.
func TestMAC(t *testing.T) {
	ring, other := ringOf(t, edKey(t)), ringOf(t, edKey(t))
	sum := ring.MAC("quote", []byte("data"), start)
	if len(sum) != 32 || !ring.CheckMAC("quote", []byte("data"), sum, start) {
		t.Fatalf("%x", sum)
	}
	for what, ok := range map[string]bool{
		"another purpose": ring.CheckMAC("credential", []byte("data"), sum, start),
		"other data":      ring.CheckMAC("quote", []byte("datum"), sum, start),
		"another ring":    other.CheckMAC("quote", []byte("data"), sum, start),
		"half of it":      ring.CheckMAC("quote", []byte("data"), sum[:16], start),
		"nothing":         ring.CheckMAC("quote", []byte("data"), nil, start),
	} {
		if ok {
			t.Errorf("%s: taken", what)
		}
	}
	key := edKey(t)
	sum = ringOf(t, key).MAC("quote", []byte("data"), start)
	if !ringOf(t, edKey(t), key.Retired(start.Add(time.Hour))).CheckMAC("quote", []byte("data"), sum, start) {
		t.Error("refused when its key signs no more")
	}
	// A key that was stolen is ended before its time; it stays in the ring, to be seen.
	if ringOf(t, edKey(t), key.Retired(start)).CheckMAC("quote", []byte("data"), sum, start) {
		t.Error("taken though its key has ended")
	}
	// A public half alone checks nothing, and is nobody's secret.
	public, err := newPublicKey(key.verify)
	if err != nil {
		t.Fatal(err)
	}
	half := ringOf(t, edKey(t), public)
	if half.CheckMAC("quote", []byte("data"), mac(nil, []byte("data")), start) {
		t.Error("a MAC of nobody's is taken")
	}
	secret := parsed(t, []byte(goodSecret))
	if bytes.Equal(ringOf(t, secret).MAC("", []byte("data"), start), mac([]byte(goodSecret), []byte("data"))) {
		t.Error("the MAC is the key's own")
	}
}

// A service token is nobody's way through the gate, and says whose it is.
func TestService(t *testing.T) {
	ring := ringOf(t, edKey(t))
	i := Issuer{Keyring: ring, Issuer: site}
	tok, err := i.Service("https://issuer.example", time.Minute, start)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []Kind{Access, Assertion} {
		if _, err := verifier(t, ring, kind, 0).Verify(tok, start); !errors.Is(err, ErrWrongKind) {
			t.Errorf("as %v: %v", kind, err)
		}
	}
	if again, _ := i.Service("https://issuer.example", time.Minute, start); again == tok {
		t.Error("two have the same jti")
	}
	for _, bad := range []func() (string, error){
		func() (string, error) { return i.Service("", time.Minute, start) },
		func() (string, error) { return i.Service("x", time.Millisecond, start) },
		func() (string, error) { return (&Issuer{Keyring: ring}).Service("x", time.Minute, start) },
	} {
		if tok, err := bad(); err == nil {
			t.Errorf("made %s", tok)
		}
	}
}

// What a ledger gives back as sealed may be anything.
func FuzzOpen(f *testing.F) {
	k, err := GenerateKey(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		f.Fatal(err)
	}
	ring := ringOf(f, k)
	sealed, err := ring.Seal("credential", "pay_1", []byte("hello"), start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{sealedForm, 255})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := ring.Open("credential", "pay_1", data)
		if err == nil && string(plain) != "hello" || err != nil && !errors.Is(err, ErrSealed) {
			t.Fatalf("%q %v", plain, err)
		}
	})
}
