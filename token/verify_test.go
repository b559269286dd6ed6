package token

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const site = "https://api.example.com"

var start = time.Unix(1_800_000_000, 0)

func sale() Claims {
	return Claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: "0x857b06519E91e3A54538791bDbb0E22373e36b66", ID: "pay_1"},
		X402: Purchase{
			Plan: "day", Network: "eip155:84532", Asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", Amount: "1000000",
			Transaction: "0x" + strings.Repeat("ab", 32), Resource: site + "/reports/1?a=b&c=d",
		},
	}
}

func issue(t testing.TB, ring *Keyring, kind Kind, c Claims, ttl time.Duration) string {
	t.Helper()
	i := Issuer{Keyring: ring, Issuer: site, Now: func() time.Time { return start }}
	s, err := i.Issue(kind, c, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t testing.TB, ring *Keyring, kind Kind, size int) *Verifier {
	t.Helper()
	v, err := NewVerifier(ring, kind, site, size)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantErr(t *testing.T, v *Verifier, tok string, now time.Time, want error) {
	t.Helper()
	c, err := v.Verify(tok, now)
	if !errors.Is(err, want) || c != nil {
		t.Errorf("got %v, %v; want %v", c, err, want)
	}
	for _, other := range []error{
		ErrMalformed, ErrUnknownKey, ErrWrongKind, ErrBadSignature, ErrWrongAudience, ErrNotYetValid, ErrExpired, ErrRevoked,
	} {
		if errors.Is(err, other) && !errors.Is(want, other) {
			t.Errorf("%v is %v as well as %v", err, other, want)
		}
	}
	if err != nil && len(tok) > 20 && strings.Contains(err.Error(), tok) {
		t.Errorf("the error shows the token: %v", err)
	}
}

func wantOK(t *testing.T, v *Verifier, tok string, now time.Time) *Claims {
	t.Helper()
	c, err := v.Verify(tok, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssuedTokensVerify(t *testing.T) {
	for alg, k := range everyKey(t) {
		for _, kind := range []Kind{Access, Assertion} {
			ring := ringOf(t, k)
			tok := issue(t, ring, kind, sale(), time.Hour)
			v := verifier(t, ring, kind, 0)
			for range 2 { // verified, then remembered
				c := wantOK(t, v, tok, start)
				want := sale()
				if c.Subject != want.Subject || c.ID != want.ID || c.X402 != want.X402 || c.Issuer != site ||
					!c.IssuedAt.Equal(start) || !c.NotBefore.Equal(start) || !c.ExpiresAt.Equal(start.Add(time.Hour)) {
					t.Errorf("%s %v: got %+v", alg, kind, c)
				}
			}
			header := decoded(t, tok, 0)
			if header["alg"] != alg || header["kid"] != k.ID() || header["typ"] != kind.Type() || len(header) != 3 {
				t.Errorf("%s %v: header %v", alg, kind, header)
			}
		}
	}
}

func decoded(t *testing.T, tok string, part int) map[string]any {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(tok, ".")[part])
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAccessTokenHasWhatRFC9068Wants(t *testing.T) {
	ring := ringOf(t, edKey(t))
	access := decoded(t, issue(t, ring, Access, sale(), time.Hour), 1)
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "nbf", "x402"} {
		if access[name] == nil {
			t.Errorf("%s is missing in %v", name, access)
		}
	}
	if access["client_id"] != access["sub"] || fmt.Sprint(access["aud"]) != "["+site+"]" {
		t.Errorf("got %v", access)
	}
	assertion := decoded(t, issue(t, ring, Assertion, sale(), time.Minute), 1)
	if fmt.Sprint(assertion["aud"]) != "["+AssertionAudience+"]" || assertion["client_id"] != nil {
		t.Errorf("got %v", assertion)
	}
}

func TestIssueAgainGivesTheSameBytes(t *testing.T) {
	for _, alg := range []string{"EdDSA", "HS256", "RS256"} {
		ring := ringOf(t, everyKey(t)[alg])
		c := sale()
		c.IssuedAt = jwt.NewNumericDate(start.Add(-time.Minute))
		later := Issuer{Keyring: ring, Issuer: site, Now: func() time.Time { return start.Add(time.Hour) }}
		again, err := later.Issue(Access, c, time.Hour)
		if first := issue(t, ring, Access, c, time.Hour); err != nil || first != again {
			t.Errorf("%s: %v:\n%s\n%s", alg, err, first, again)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	ring := ringOf(t, edKey(t))
	for name, change := range map[string]func(*Issuer, *Kind, *Claims, *time.Duration){
		"no payer":     func(_ *Issuer, _ *Kind, c *Claims, _ *time.Duration) { c.Subject = "" },
		"no payment":   func(_ *Issuer, _ *Kind, c *Claims, _ *time.Duration) { c.ID = "" },
		"no issuer":    func(i *Issuer, _ *Kind, _ *Claims, _ *time.Duration) { i.Issuer = "" },
		"no kind":      func(_ *Issuer, k *Kind, _ *Claims, _ *time.Duration) { *k = 0 },
		"no life":      func(_ *Issuer, _ *Kind, _ *Claims, d *time.Duration) { *d = 0 },
		"half a life":  func(_ *Issuer, _ *Kind, _ *Claims, d *time.Duration) { *d = time.Second / 2 },
		"an epic plan": func(_ *Issuer, _ *Kind, c *Claims, _ *time.Duration) { c.X402.Plan = strings.Repeat("x", MaxSize) },
	} {
		i, k, c, d := Issuer{Keyring: ring, Issuer: site}, Access, sale(), time.Hour
		change(&i, &k, &c, &d)
		if tok, err := i.Issue(k, c, d); err == nil {
			t.Errorf("%s: got %s", name, tok)
		}
	}
}

func TestLongResourceIsLeftOut(t *testing.T) {
	ring := ringOf(t, edKey(t))
	c := sale()
	c.X402.Resource = site + "/?" + strings.Repeat("&", 64<<10)
	if got := wantOK(t, verifier(t, ring, Access, 0), issue(t, ring, Access, c, time.Hour), start); got.X402.Resource != "" {
		t.Errorf("got %d bytes of it", len(got.X402.Resource))
	}
}

// The bounds of validity, for a token seen for the first time and for one that is remembered.
func TestTimes(t *testing.T) {
	ring := ringOf(t, edKey(t))
	tok := issue(t, ring, Access, sale(), time.Hour)
	for _, c := range []struct {
		at   time.Duration
		want error
	}{
		{-Leeway - time.Second, ErrNotYetValid},
		{-Leeway, nil},
		{0, nil},
		{time.Hour + Leeway - time.Second, nil},
		{time.Hour + Leeway, ErrExpired},
		{-Leeway - time.Second, ErrNotYetValid}, // a clock that was set back
	} {
		fresh, warm := verifier(t, ring, Access, 0), verifier(t, ring, Access, 0)
		wantOK(t, warm, tok, start)
		for _, v := range []*Verifier{fresh, warm} {
			if c.want == nil {
				wantOK(t, v, tok, start.Add(c.at))
			} else {
				wantErr(t, v, tok, start.Add(c.at), c.want)
			}
		}
	}
}

func TestKindsDontMix(t *testing.T) {
	ring := ringOf(t, edKey(t))
	wantErr(t, verifier(t, ring, Access, 0), issue(t, ring, Assertion, sale(), time.Hour), start, ErrWrongKind)
	wantErr(t, verifier(t, ring, Assertion, 0), issue(t, ring, Access, sale(), time.Hour), start, ErrWrongKind)
	// Nor if somebody with the key writes one kind's header over the other's claims.
	claims := wantOK(t, verifier(t, ring, Assertion, 0), issue(t, ring, Assertion, sale(), time.Hour), start)
	crossed, err := sign(ring.SigningKey(start), Access, claims)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, verifier(t, ring, Access, 0), crossed, start, ErrWrongAudience)
}

func TestOtherIssuer(t *testing.T) {
	ring := ringOf(t, edKey(t))
	other := Issuer{Keyring: ring, Issuer: "https://other.example.com", Now: func() time.Time { return start }}
	for _, kind := range []Kind{Access, Assertion} {
		tok, err := other.Issue(kind, sale(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, verifier(t, ring, kind, 0), tok, start, ErrWrongAudience)
	}
}

// forged signs any header and claims with any method and key.
func forged(t testing.TB, m jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	tok := jwt.Token{Method: m, Header: header, Claims: jwt.MapClaims(claims)}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func with(m map[string]any, k string, v any) map[string]any {
	m = maps.Clone(m)
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
	return m
}

// The attacks of RFC 8725 section 2, and their relatives. Each forger holds what the attack supposes: nothing, the public keys,
// or (where only the claims are wrong) the signing key itself.
func TestAttacks(t *testing.T) {
	keys := everyKey(t)
	ed, rs, hs := keys["EdDSA"], keys["RS256"], keys["HS256"]
	ring := ringOf(t, ed, rs, hs, keys["ES256"])
	v := verifier(t, ring, Access, 0)
	good := issue(t, ring, Access, sale(), time.Hour)
	wantOK(t, v, good, start)
	claims := decoded(t, good, 1)
	for _, n := range []string{"iat", "nbf", "exp"} {
		claims[n] = int64(claims[n].(float64))
	}
	head := func(alg string, k Key) map[string]any {
		return map[string]any{"alg": alg, "kid": k.ID(), "typ": "at+jwt"}
	}
	edHead, none := head("EdDSA", ed), jwt.UnsafeAllowNoneSignatureType
	own := func(header, claims map[string]any) string {
		return forged(t, jwt.SigningMethodEdDSA, ed.sign, header, claims)
	}
	wantOK(t, v, own(edHead, claims), start)
	parts := strings.Split(good, ".")
	stranger := edKey(t)
	der, err := x509.MarshalPKIXPublicKey(rs.verify)
	publicPEM := pemOf(t, "PUBLIC KEY", der, err)

	for name, c := range map[string]struct {
		tok  string
		want error
	}{
		"none":                        {forged(t, jwt.SigningMethodNone, none, head("none", ed), claims), ErrBadSignature},
		"none, spelt otherwise":       {b64(`{"alg":"nOnE","kid":"`+ed.ID()+`","typ":"at+jwt"}`) + "." + parts[1] + ".", ErrMalformed},
		"no algorithm":                {own(with(edHead, "alg", nil), claims), ErrMalformed},
		"algorithm of another type":   {own(with(edHead, "alg", 1), claims), ErrMalformed},
		"signature cut off":           {parts[0] + "." + parts[1] + ".", ErrBadSignature},
		"public RSA key as secret":    {forged(t, jwt.SigningMethodHS256, publicPEM, head("HS256", rs), claims), ErrBadSignature},
		"public Ed25519 as secret":    {forged(t, jwt.SigningMethodHS256, []byte(publicOf(ed)), head("HS256", ed), claims), ErrBadSignature},
		"weaker method, same key":     {forged(t, jwt.SigningMethodPS256, rs.sign, head("PS256", rs), claims), ErrBadSignature},
		"longer hash, same key":       {forged(t, jwt.SigningMethodHS512, hs.sign, head("HS512", hs), claims), ErrBadSignature},
		"another key of the ring":     {forged(t, jwt.SigningMethodRS256, rs.sign, head("RS256", ed), claims), ErrBadSignature},
		"a stranger's key":            {forged(t, jwt.SigningMethodEdDSA, stranger.sign, edHead, claims), ErrBadSignature},
		"a stranger's key, own kid":   {forged(t, jwt.SigningMethodEdDSA, stranger.sign, head("EdDSA", stranger), claims), ErrUnknownKey},
		"key brought along (jwk)":     {forged(t, jwt.SigningMethodEdDSA, stranger.sign, with(edHead, "jwk", map[string]any{"kty": "OKP"}), claims), ErrMalformed},
		"key by URL (jku)":            {own(with(edHead, "jku", "https://evil.example"), claims), ErrMalformed},
		"key by URL (x5u)":            {own(with(edHead, "x5u", "https://evil.example"), claims), ErrMalformed},
		"critical extension":          {own(with(edHead, "crit", []string{"exp"}), claims), ErrMalformed},
		"compressed":                  {own(with(edHead, "zip", "DEF"), claims), ErrMalformed},
		"no kid":                      {own(with(edHead, "kid", nil), claims), ErrMalformed},
		"kid that is a path":          {own(with(edHead, "kid", "../../etc/passwd"), claims), ErrUnknownKey},
		"kid of another type":         {own(with(edHead, "kid", []string{ed.ID()}), claims), ErrMalformed},
		"no type":                     {own(with(edHead, "typ", nil), claims), ErrMalformed},
		"plain JWT":                   {own(with(edHead, "typ", "JWT"), claims), ErrWrongKind},
		"type in upper case":          {own(with(edHead, "typ", "AT+JWT"), claims), ErrWrongKind},
		"an assertion":                {own(with(edHead, "typ", "x402-assertion+jwt"), claims), ErrWrongKind},
		"no expiry":                   {own(edHead, with(claims, "exp", nil)), ErrMalformed},
		"expiry of another type":      {own(edHead, with(claims, "exp", "never")), ErrMalformed},
		"expiry null":                 {own(edHead, with(claims, "exp", json.RawMessage("null"))), ErrMalformed},
		"no start":                    {own(edHead, with(claims, "nbf", nil)), ErrMalformed},
		"no time of issue":            {own(edHead, with(claims, "iat", nil)), ErrMalformed},
		"issued tomorrow":             {own(edHead, with(claims, "iat", start.Unix()+86400)), ErrNotYetValid},
		"valid from tomorrow":         {own(edHead, with(claims, "nbf", start.Unix()+86400)), ErrNotYetValid},
		"expired":                     {own(edHead, with(claims, "exp", start.Unix()-86400)), ErrExpired},
		"no payer":                    {own(edHead, with(claims, "sub", nil)), ErrMalformed},
		"no payment":                  {own(edHead, with(claims, "jti", nil)), ErrMalformed},
		"no issuer":                   {own(edHead, with(claims, "iss", nil)), ErrMalformed},
		"another issuer":              {own(edHead, with(claims, "iss", site+"/")), ErrWrongAudience},
		"no audience":                 {own(edHead, with(claims, "aud", nil)), ErrMalformed},
		"another audience":            {own(edHead, with(claims, "aud", []string{"https://other.example"})), ErrWrongAudience},
		"claims changed":              {parts[0] + "." + b64(`{"exp":9999999999}`) + "." + parts[2], ErrBadSignature},
		"encrypted (five parts)":      {good + ".a.b", ErrMalformed},
		"two parts":                   {parts[0] + "." + parts[1], ErrMalformed},
		"empty":                       {"", ErrMalformed},
		"dots":                        {"..", ErrMalformed},
		"padded":                      {good + "=", ErrMalformed},
		"line end within":             {good[:20] + "\n" + good[20:], ErrMalformed},
		"line end after":              {good + "\r\n", ErrMalformed},
		"NUL after":                   {good + "\x00", ErrMalformed},
		"too long":                    {good + strings.Repeat("A", MaxSize), ErrMalformed},
		"another spelling of its end": {respelt(t, good), ErrMalformed},
		"not even JSON":               {b64("hello") + "." + parts[1] + "." + parts[2], ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			wantErr(t, v, c.tok, start, c.want)
			wantErr(t, v, c.tok, start, c.want) // refused again: nothing of it was remembered
		})
	}
	wantOK(t, v, good, start)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func publicOf(k Key) string { return fmt.Sprintf("%s", k.verify) }

// respelt changes the bits of the last character that decoding ignores: 64 bytes leave four of them.
func respelt(t *testing.T, tok string) string {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, tok[len(tok)-1])
	s := tok[:len(tok)-1] + string(alphabet[last^1])
	sig := strings.LastIndexByte(s, '.') + 1
	a, err := base64.RawURLEncoding.DecodeString(s[sig:])
	b, err2 := base64.RawURLEncoding.DecodeString(tok[sig:])
	if err != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Fatal("not another spelling of the same")
	}
	return s
}

// An ES256 signature (r, s) has a twin (r, n-s) that is as good. Both are the same token: revoking one revokes both.
func TestTwinSignatureIsRevokedToo(t *testing.T) {
	ring := ringOf(t, everyKey(t)["ES256"])
	v := verifier(t, ring, Access, 0)
	tok := issue(t, ring, Access, sale(), time.Hour)
	dot := strings.LastIndexByte(tok, '.') + 1
	sig, err := base64.RawURLEncoding.DecodeString(tok[dot:])
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	twin := tok[:dot] + base64.RawURLEncoding.EncodeToString(sig)
	wantOK(t, v, tok, start)
	wantOK(t, v, twin, start)
	v.revoked.Add("pay_1", start.Add(time.Hour), start)
	wantErr(t, v, tok, start, ErrRevoked)
	wantErr(t, v, twin, start, ErrRevoked)
}

func TestRevoke(t *testing.T) {
	ring := ringOf(t, edKey(t))
	v := verifier(t, ring, Access, 0)
	known := issue(t, ring, Access, sale(), time.Hour)
	unseen := sale()
	unseen.X402.Plan = "week"
	other := sale()
	other.ID = "pay_2"
	wantOK(t, v, known, start)
	v.revoked.Add("pay_1", start.Add(time.Hour), start)
	wantErr(t, v, known, start, ErrRevoked)
	wantErr(t, v, issue(t, ring, Access, unseen, time.Hour), start, ErrRevoked)
	wantOK(t, v, issue(t, ring, Access, other, time.Hour), start)

	// A revocation is remembered as long as a token could be good, and no longer.
	v.revoked.Add("pay_1", start, start) // an earlier end doesn't shorten it
	end := start.Add(time.Hour + Leeway)
	for i := range 1000 {
		v.revoked.Add(fmt.Sprint("old_", i), start, end.Add(-time.Second))
	}
	wantErr(t, v, known, end.Add(-time.Second), ErrRevoked)
	for i := range 1000 {
		v.revoked.Add(fmt.Sprint("new_", i), end.Add(time.Hour), end.Add(time.Hour))
	}
	if n := len(v.revoked.until); n > 1100 {
		t.Errorf("%d revocations are remembered, 1000 of them count", n)
	}
	wantErr(t, v, known, end, ErrExpired)
}

// turn makes next the key that signs at once; the one before it verifies until the given time.
func turn(t testing.TB, ring *Keyring, next Key, until time.Time) {
	t.Helper()
	keys := []Key{next}
	for _, k := range ring.Keys() {
		if k.sign != nil {
			k = k.Retired(until)
		}
		keys = append(keys, k)
	}
	ring.Replace(ringOf(t, keys...))
}

func TestRetiredKeyVerifiesUntilItsEnd(t *testing.T) {
	first, second := edKey(t), edKey(t)
	ring := ringOf(t, first)
	v := verifier(t, ring, Access, 0)
	old := issue(t, ring, Access, sale(), 24*time.Hour)
	wantOK(t, v, old, start)

	overlap := start.Add(time.Hour)
	turn(t, ring, second, overlap)
	if ring.SigningKey(start).ID() != second.ID() {
		t.Error("the new key doesn't sign")
	}
	fresh := issue(t, ring, Access, sale(), 24*time.Hour)
	wantOK(t, v, old, start)
	wantOK(t, v, fresh, start)
	wantOK(t, v, old, overlap.Add(-time.Second))
	wantErr(t, v, old, overlap, ErrUnknownKey) // although it was remembered
	wantOK(t, v, fresh, overlap)
}

func TestWithdrawnKeyIsForgotten(t *testing.T) {
	ring := ringOf(t, edKey(t))
	v := verifier(t, ring, Access, 0)
	tok := issue(t, ring, Access, sale(), time.Hour)
	wantOK(t, v, tok, start)
	ring.Replace(ringOf(t, edKey(t)))
	wantErr(t, v, tok, start, ErrUnknownKey)
}

func TestCacheIsBounded(t *testing.T) {
	ring := ringOf(t, parsed(t, []byte(goodSecret)))
	v := verifier(t, ring, Access, 128)
	count := func() int {
		n := 0
		for i := range v.verified.shards {
			n += len(v.verified.shards[i].entries)
		}
		return n
	}
	verify := func(id int, ttl time.Duration, now time.Time) {
		c := sale()
		c.ID = fmt.Sprint("pay_", id)
		wantOK(t, v, issue(t, ring, Access, c, ttl), now)
	}
	for i := range 1000 {
		verify(i, time.Hour, start)
		if n := count(); n > 128 {
			t.Fatalf("%d entries", n)
		}
	}
	if n := count(); n < 64 {
		t.Errorf("only %d entries are left of 128", n)
	}
	// One that is used all the time stays while others come and go.
	busy := issue(t, ring, Access, sale(), 10*time.Hour)
	kept := wantOK(t, v, busy, start)
	for i := range 1000 {
		now := start.Add(time.Duration(i) * time.Second)
		verify(1000+i, 10*time.Hour, now)
		if got := wantOK(t, v, busy, now.Add(time.Second)); got != kept {
			t.Fatalf("the busy token was dropped after %d others", i)
		}
	}
}

func TestExpiredEntryIsDropped(t *testing.T) {
	ring := ringOf(t, edKey(t))
	v := verifier(t, ring, Access, 0)
	tok := issue(t, ring, Access, sale(), time.Minute)
	wantOK(t, v, tok, start)
	wantErr(t, v, tok, start.Add(time.Hour), ErrExpired)
	if n := len(v.verified.shard(tok).entries); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	ring := ringOf(t, parsed(t, []byte(goodSecret)))
	v := verifier(t, ring, Access, 64)
	toks := make([]string, 200)
	for i := range toks {
		c := sale()
		c.ID = fmt.Sprint("pay_", i)
		toks[i] = issue(t, ring, Access, c, time.Hour)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, tok := range toks {
				if c, err := v.Verify(tok, start); err == nil && c.ID != fmt.Sprint("pay_", i) {
					t.Errorf("got %s for %d", c.ID, i)
				} else if err != nil && !errors.Is(err, ErrRevoked) {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 100 {
			v.revoked.Add(fmt.Sprint("pay_", 2*i), start.Add(time.Hour), start)
		}
	})
	wg.Go(func() {
		for range 10 {
			turn(t, ring, edKey(t), start.Add(time.Hour))
		}
	})
	wg.Wait()
	for i, tok := range toks {
		if _, err := v.Verify(tok, start); (i%2 == 0) != errors.Is(err, ErrRevoked) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	ring := ringOf(t, edKey(t))
	if _, err := NewVerifier(nil, Access, site, 0); err == nil {
		t.Error("no keyring: taken")
	}
	if _, err := NewVerifier(ring, 0, site, 0); err == nil {
		t.Error("no kind: taken")
	}
	if _, err := NewVerifier(ring, Access, "", 0); err == nil {
		t.Error("no issuer: taken")
	}
}
