package signer_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement/signer"
)

// What OpenSSL 3 made: a public key of secp256k1, and its signatures of SHA-256 of the message, with high s and low, and r
// with and without a zero before it.
const (
	opensslMessage = "caddy-x402"
	opensslKey     = "3056301006072a8648ce3d020106052b8104000a0342000415c99b7a65378735ad0f66b4eb52cd0b94a258857993a8d56984916c267b7d4a1d2c4ad8324c2e08d15681f4e690c85063b86b8a0c616ffd7c8c08476e7b306a"
)

var opensslSignatures = []string{
	"304402206a29e09b5c0454cd0cb1c60f032bb733dccf9ccc0c764ad0a63d49c805bd4af802200fdab02e201438acfea3e9367e823b735891199a4bd75f543ecebac2eeee4bed",
	"3045022100af41a5276978b8f21970ae85f8061a03fd9e78d2265777283ac2152e9aa0370c0220152287428936884180f3569af09fb26b6635c089308102b53ff920d6d5527fdf",
	"304502200a2f7e55750d9ce4d17f271c117b22ea8e9c2e2afb3516c445beb788f3229794022100c89c461943ef898b354ca666a7f2fd76c0b73b5c8cbd95c3845ba8176f9082c4",
	"30440220197447b35a3a62da795424afa9a050c8d4c14ce454b5123048c5b3be2ebc195402207f0b586953db8b516a5d73baa9b3702ffa5c5d7096c4c224649e423a2d33992d",
	"304502207924e567ca2ed7a6c3234e7e8699ba04639ca972659fa72bbb8f9ed5a9446c1f022100cbed355382b321befaa6a79b5b9a2fd7ec79ee021e287f99813b8e87449e2c82",
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var order = crypto.S256().Params().N

// ecdsaSignature is r and s as encoding/asn1 writes them.
type ecdsaSignature struct{ R, S *big.Int }

func der(t interface {
	Helper()
	Fatal(...any)
}, r, s *big.Int,
) []byte {
	t.Helper()
	b, err := asn1.Marshal(ecdsaSignature{r, s})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func drawKey(t *rapid.T, label string) *ecdsa.PrivateKey {
	d := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label)
	k, err := crypto.ToECDSA(d)
	if err != nil {
		t.Skip("no key")
	}
	return k
}

// wellFormed checks what every chain demands of a signature, and whose it is.
func wellFormed(signature []byte, digest common.Hash, by common.Address) error {
	if len(signature) != 65 || signature[64] > 1 {
		return fmt.Errorf("%x is not r, s and a v of 0 or 1", signature)
	}
	if s := new(big.Int).SetBytes(signature[32:64]); s.Cmp(new(big.Int).Rsh(order, 1)) > 0 {
		return fmt.Errorf("s is high: %x", s)
	}
	k, err := crypto.SigToPub(digest[:], signature)
	if err != nil {
		return err
	}
	if got := crypto.PubkeyToAddress(*k); got != by {
		return fmt.Errorf("it is %s's, not %s's", got, by)
	}
	return nil
}

func TestLocal(t *testing.T) {
	k := key(t)
	l, err := signer.NewLocal(k)
	if err != nil {
		t.Fatal(err)
	}
	if want := crypto.PubkeyToAddress(k.PublicKey); l.Address() != want {
		t.Errorf("the address is %s, want %s", l.Address(), want)
	}
	digest := crypto.Keccak256Hash([]byte("transaction"))
	signature, err := l.Sign(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := wellFormed(signature, digest, l.Address()); err != nil {
		t.Error(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*ecdsa.PrivateKey{"no key": nil, "another curve": other} {
		if l, err := signer.NewLocal(k); err == nil {
			t.Errorf("%s makes %s", name, l)
		}
	}
	if got, err := (signer.Local{}).Sign(t.Context(), digest); err == nil {
		t.Errorf("nobody signs: %x", got)
	}
}

// However a signer is printed, logged or marshaled, its key is not seen; its address is.
func TestLocalIsNeverPrinted(t *testing.T) {
	k := key(t)
	l, err := signer.NewLocal(k)
	if err != nil {
		t.Fatal(err)
	}
	type settings struct {
		Signer signer.Local
		hidden signer.Local
	}
	held := settings{l, l}
	texts := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%o", "%t"} {
		for what, v := range map[string]any{"value": l, "pointer": &l, "list": []signer.Local{l}, "map": map[int]any{1: &l}, "field": held, "pointer to field": &held} {
			texts[verb+" "+what] = fmt.Sprintf(verb, v)
		}
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("signer", slog.Any("value", l), slog.Any("pointer", &l), slog.Any("held", held))
	}
	texts["log"] = log.String()
	encoded, err := json.Marshal(map[string]any{"value": l, "pointer": &l, "held": held})
	if err != nil {
		t.Fatal(err)
	}
	texts["JSON"] = string(encoded)
	texts["error"] = fmt.Errorf("signing with %v failed", l).Error()

	secret := crypto.FromECDSA(k)
	number, listed := new(big.Int).SetBytes(secret), strings.Trim(fmt.Sprintf("%d", secret), "[]")
	for name, text := range texts {
		lower := strings.ToLower(text)
		for form, s := range map[string]string{
			"hex": hex.EncodeToString(secret)[2:], "decimal": number.String(), "octal": number.Text(8),
			"list of bytes": listed,
		} {
			if strings.Contains(lower, s) {
				t.Errorf("%s shows the key in %s", name, form)
			}
		}
	}
	for _, name := range []string{"%v value", "%+v pointer", "%x value", "%d list", "log", "JSON", "error"} {
		if !strings.Contains(texts[name], l.Address().Hex()) {
			t.Errorf("%s does not say whose: %s", name, texts[name])
		}
	}
}

// From a service's answer, with high s or low, comes the very signature that the key itself would have made here.
func TestFromDERIsAsLocal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawKey(t, "key")
		l, err := signer.NewLocal(k)
		if err != nil {
			t.Fatal(err)
		}
		digest := common.Hash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
		want, err := l.Sign(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(want, digest, l.Address()); err != nil {
			t.Fatal(err)
		}
		r, s := new(big.Int).SetBytes(want[:32]), new(big.Int).SetBytes(want[32:64])
		for _, s := range []*big.Int{s, new(big.Int).Sub(order, s)} {
			answer := der(t, r, s)
			got, err := signer.FromDER(answer, digest, l.Address())
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("s is %x: %x, %v; want %x", s, got, err, want)
			}
			refused := func(what string, answer []byte, digest common.Hash, by common.Address) {
				if got, err := signer.FromDER(answer, digest, by); !errors.Is(err, signer.ErrSignature) || got != nil {
					t.Fatalf("%s: %x, %v", what, got, err)
				}
			}
			at := rapid.IntRange(0, len(answer)-1).Draw(t, "at")
			changed := slices.Clone(answer)
			changed[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "change"))
			refused("a changed byte", changed, digest, l.Address())
			refused("cut off", answer[:at], digest, l.Address())
			digest[at%32] ^= 1
			refused("another digest", answer, digest, l.Address())
			digest[at%32] ^= 1
			other := l.Address()
			other[at%20] ^= 1
			refused("another account", answer, digest, other)
		}
	})
}

func TestOpenSSL(t *testing.T) {
	address, err := signer.AddressOf(unhex(t, opensslKey))
	if err != nil {
		t.Fatal(err)
	}
	digest := common.Hash(sha256.Sum256([]byte(opensslMessage)))
	high := 0
	for _, s := range opensslSignatures {
		answer := unhex(t, s)
		signature, err := signer.FromDER(answer, digest, address)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if err := wellFormed(signature, digest, address); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if !bytes.Contains(answer, signature[32:64]) {
			high++
		}
	}
	if high != 2 {
		t.Errorf("%d signatures had a high s, want 2", high)
	}
}

func TestFromDERRefuses(t *testing.T) {
	const good = "304402206a29e09b5c0454cd0cb1c60f032bb733dccf9ccc0c764ad0a63d49c805bd4af802200fdab02e201438acfea3e9367e823b735891199a4bd75f543ecebac2eeee4bed"
	r, s := good[4:4+68], good[4+68:]
	n := hex.EncodeToString(order.Bytes())
	address, err := signer.AddressOf(unhex(t, opensslKey))
	if err != nil {
		t.Fatal(err)
	}
	digest := common.Hash(sha256.Sum256([]byte(opensslMessage)))
	for name, text := range map[string]string{
		"nothing":                   "",
		"a tag":                     "30",
		"an empty sequence":         "3000",
		"r alone":                   "3022" + r,
		"three numbers":             "3047" + r + s + "020101",
		"bytes behind":              good + "00",
		"a set":                     "3144" + r + s,
		"r is no integer":           "304404" + r[2:] + s,
		"s is no integer":           "3044" + r + "03" + s[2:],
		"r is empty":                "3024" + "0200" + s,
		"a length of two bytes":     "308144" + r + s,
		"an open end":               "3080" + r + s + "0000",
		"too long a length":         "3045" + r + s,
		"too short a length":        "3043" + r + s,
		"r longer than the rest":    "3044" + "0243" + r[4:] + s,
		"a zero too many before r":  "3045" + "022100" + r[4:] + s,
		"a zero too many before s":  "3045" + r + "022100" + s[4:],
		"r is negative":             "3044" + "0220ff" + r[6:] + s,
		"r is zero":                 "3025" + "020100" + s,
		"s is zero":                 "3025" + r + "020100",
		"r is zero in two bytes":    "3026" + "02020000" + s,
		"r is the order":            "3045" + "022100" + n + s,
		"s is the order":            "3045" + r + "022100" + n,
		"s is more than the order":  "3045" + r + "022100" + strings.Repeat("ff", 32),
		"r of 33 bytes":             "3045" + "022101" + r[4:] + s,
		"r and s as 64 bytes":       r[4:] + s[4:],
		"r, s and v":                r[4:] + s[4:] + "00",
		"r and s of another":        "3044" + s + r,
		"a public key":              opensslKey,
		"text":                      hex.EncodeToString([]byte("<html>no such page</html>")),
		"a long answer":             strings.Repeat(good, 1000),
		"a sequence in a sequence":  "3046" + good,
		"a length beyond all bytes": "30ff" + r + s,
	} {
		if got, err := signer.FromDER(unhex(t, text), digest, address); !errors.Is(err, signer.ErrSignature) || got != nil {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	if _, err := signer.FromDER(unhex(t, good), digest, address); err != nil {
		t.Errorf("and what they were made of: %v", err)
	}
}

// spki is a key's SubjectPublicKeyInfo, as encoding/asn1 writes it.
type spki struct {
	Algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
	Point     asn1.BitString
}

func marshalSPKI(t testing.TB, algorithm, curve asn1.ObjectIdentifier, point []byte) []byte {
	t.Helper()
	info := spki{Point: asn1.BitString{Bytes: point, BitLength: 8 * len(point)}}
	info.Algorithm.Algorithm, info.Algorithm.Curve = algorithm, curve
	b, err := asn1.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	ecPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	secp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	secp256r1   = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	ecDH        = asn1.ObjectIdentifier{1, 3, 132, 1, 12}
)

func TestAddressOf(t *testing.T) {
	for range 20 {
		k := key(t)
		want := crypto.PubkeyToAddress(k.PublicKey)
		got, err := signer.AddressOf(marshalSPKI(t, ecPublicKey, secp256k1, crypto.FromECDSAPub(&k.PublicKey)))
		if err != nil || got != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

func TestAddressOfRefuses(t *testing.T) {
	k := key(t)
	point := crypto.FromECDSAPub(&k.PublicKey)
	good := marshalSPKI(t, ecPublicKey, secp256k1, point)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKIXPublicKey(&p256.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, with byte) []byte {
		b := slices.Clone(point)
		b[at] = with
		return b
	}
	// The field's prime as x: the same as zero, in other digits.
	prime := slices.Clone(point)
	copy(prime[1:], crypto.S256().Params().P.Bytes())
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"a point alone":             point,
		"P-256":                     other,
		"P-256's name, our point":   marshalSPKI(t, ecPublicKey, secp256r1, point),
		"for key agreement only":    marshalSPKI(t, ecDH, secp256k1, point),
		"compressed":                marshalSPKI(t, ecPublicKey, secp256k1, crypto.CompressPubkey(&k.PublicKey)),
		"hybrid":                    marshalSPKI(t, ecPublicKey, secp256k1, change(0, 6|point[64]&1)),
		"not on the curve":          marshalSPKI(t, ecPublicKey, secp256k1, change(64, point[64]^1)),
		"the point at infinity":     marshalSPKI(t, ecPublicKey, secp256k1, make([]byte, 65)),
		"zeros":                     marshalSPKI(t, ecPublicKey, secp256k1, append([]byte{4}, make([]byte, 64)...)),
		"more than the field holds": marshalSPKI(t, ecPublicKey, secp256k1, prime),
		"a point too long":          marshalSPKI(t, ecPublicKey, secp256k1, append(slices.Clone(point), 0)),
		"bytes behind":              append(slices.Clone(good), 0),
		"cut off":                   good[:len(good)-1],
		"the prefix alone":          good[:23],
	} {
		if got, err := signer.AddressOf(b); !errors.Is(err, signer.ErrPublicKey) || got != (common.Address{}) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := signer.AddressOf(good); err != nil {
		t.Errorf("and what they were made of: %v", err)
	}
}

// What is taken for a key is what encoding/asn1 would have written of a point on the curve.
func FuzzAddressOf(f *testing.F) {
	f.Add(unhex(f, opensslKey))
	f.Fuzz(func(t *testing.T, b []byte) {
		address, err := signer.AddressOf(b)
		if err != nil {
			return
		}
		var info spki
		if rest, err := asn1.Unmarshal(b, &info); err != nil || len(rest) != 0 {
			t.Fatalf("%x: %v, %x", b, err, rest)
		}
		if again := marshalSPKI(t, ecPublicKey, secp256k1, info.Point.Bytes); !bytes.Equal(again, b) {
			t.Fatalf("%x would be written\n%x", b, again)
		}
		k, err := crypto.UnmarshalPubkey(info.Point.Bytes)
		if err != nil || crypto.PubkeyToAddress(*k) != address {
			t.Fatalf("%x: %v", b, err)
		}
	})
}
