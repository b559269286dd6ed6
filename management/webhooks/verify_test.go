package webhooks

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The specification's own example.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	exampleSeconds   = 1614265330
)

func TestSigningTheExampleOfTheSpecification(t *testing.T) {
	h := http.Header{}
	if err := sign(h, exampleID, time.Unix(exampleSeconds, 0), []byte(exampleBody), []string{exampleSecret}); err != nil {
		t.Fatal(err)
	}
	if h.Get(HeaderSignature) != exampleSignature || h.Get(HeaderID) != exampleID || h.Get(HeaderTimestamp) != strconv.Itoa(exampleSeconds) {
		t.Errorf("%v", h)
	}
	if err := Verify(exampleSecret, h, []byte(exampleBody), time.Unix(exampleSeconds, 0)); err != nil {
		t.Error(err)
	}
}

// Their library believes what we sign, by each of two secrets.
func TestTheirLibraryVerifies(t *testing.T) {
	older, newer := NewSecret(), NewSecret()
	h, body := http.Header{}, []byte(`{"a":1}`)
	if err := sign(h, "evt_1", time.Now(), body, []string{newer, older}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{newer, older} {
		w, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(body, h); err != nil {
			t.Error(err)
		}
		if err := w.Verify([]byte(`{"a":2}`), h); err == nil {
			t.Error("another body is believed")
		}
	}
}

// Each way in which a webhook is not to be believed has its code.
func TestVerify(t *testing.T) {
	at := time.Unix(exampleSeconds, 0)
	for name, c := range map[string]struct {
		change func(http.Header)
		secret string
		body   string
		now    time.Time
		want   VerifyCode
	}{
		"good":                   {},
		"good, five minutes old": {now: at.Add(300 * time.Second)},
		"good, five minutes on":  {now: at.Add(-300 * time.Second)},
		"good, second signature": {change: func(h http.Header) { h.Set(HeaderSignature, "v1,AAAA v2,x "+exampleSignature) }},
		"a second too old":       {now: at.Add(301 * time.Second), want: TimestampOutsideWindow},
		"a second too new":       {now: at.Add(-301 * time.Second), want: TimestampOutsideWindow},
		"no secret":              {secret: "-", want: SecretMissing},
		"a secret of nothing":    {secret: SecretPrefix, want: SecretMissing},
		"another secret":         {secret: NewSecret(), want: SignatureMismatch},
		"another body":           {body: `{"test": 2432232315}`, want: SignatureMismatch},
		"another id":             {change: func(h http.Header) { h.Set(HeaderID, "msg_x") }, want: SignatureMismatch},
		"another time":           {change: func(h http.Header) { h.Set(HeaderTimestamp, "1614265331") }, want: SignatureMismatch},
		"no id":                  {change: func(h http.Header) { h.Del(HeaderID) }, want: SignatureMissing},
		"no signature":           {change: func(h http.Header) { h.Del(HeaderSignature) }, want: SignatureMissing},
		"no such signature":      {change: func(h http.Header) { h.Set(HeaderSignature, "v2,x") }, want: SignatureMalformed},
		"half a signature":       {change: func(h http.Header) { h.Set(HeaderSignature, exampleSignature[:20]) }, want: SignatureMismatch},
		"no time":                {change: func(h http.Header) { h.Del(HeaderTimestamp) }, want: TimestampMissing},
		"a time of words":        {change: func(h http.Header) { h.Set(HeaderTimestamp, "now") }, want: TimestampInvalid},
		"a time without end":     {change: func(h http.Header) { h.Set(HeaderTimestamp, strings.Repeat("9", 30)) }, want: TimestampInvalid},
		"the last of all times":  {change: func(h http.Header) { h.Set(HeaderTimestamp, "9223372036854775807") }, want: TimestampOutsideWindow},
		"the first of all times": {change: func(h http.Header) { h.Set(HeaderTimestamp, "-9223372036854775808") }, want: TimestampOutsideWindow},
	} {
		h := http.Header{}
		h.Set(HeaderID, exampleID)
		h.Set(HeaderTimestamp, strconv.Itoa(exampleSeconds))
		h.Set(HeaderSignature, exampleSignature)
		if c.change != nil {
			c.change(h)
		}
		secret, body, now := exampleSecret, exampleBody, at
		if c.secret != "" {
			secret = strings.TrimPrefix(c.secret, "-")
		}
		if c.body != "" {
			body = c.body
		}
		if !c.now.IsZero() {
			now = c.now
		}
		if got := codeOf(Verify(secret, h, []byte(body), now)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func codeOf(err error) VerifyCode {
	if e, ok := errors.AsType[*VerifyError](err); ok {
		return e.Code
	}
	return ""
}

// The compatibility header has one signature, which is checked as the other is.
func TestVerifyCompat(t *testing.T) {
	at, body := time.Unix(exampleSeconds, 0), []byte(exampleBody)
	older, newer := NewSecret(), NewSecret()
	d := &Delivery{ID: "whd_1", EventID: "evt_1", EventType: TypeSettled}
	h := http.Header{}
	signCompat(h, d, at, body, []string{newer, older})
	for name, c := range map[string]struct {
		secret, header string
		now            time.Time
		want           VerifyCode
	}{
		"the older secret, which all receivers have": {secret: older, now: at},
		"the newer one":  {secret: newer, now: at, want: SignatureMismatch},
		"no secret":      {now: at, want: SecretMissing},
		"too old":        {secret: older, now: at.Add(301 * time.Second), want: TimestampOutsideWindow},
		"no signature":   {secret: older, now: at, header: "t=1614265330", want: SignatureMalformed},
		"no time":        {secret: older, now: at, header: "v1=00", want: TimestampMissing},
		"something else": {secret: older, now: at, header: "t=1614265330,v1=00", want: SignatureMismatch},
	} {
		hc := h.Clone()
		if c.header != "" {
			hc.Set(headerCompatSignature, c.header)
		}
		if got := codeOf(VerifyCompat(c.secret, hc, body, c.now)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if h.Get(headerCompatType) != TypeSettled || h.Get(headerCompatEvent) != "evt_1" || h.Get(headerCompatDelivery) != "whd_1" || h.Get(headerCompatTimestamp) == "" {
		t.Errorf("%v", h)
	}
}

func TestSecrets(t *testing.T) {
	for range 100 {
		if err := CheckSecret(NewSecret()); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{"", "whsec_", "whsec_AAAA", "sk_live_x", "whsec_" + strings.Repeat("A", 100), "whsec_!!!!", NewSecret()[len(SecretPrefix):], "whsec_test_" + NewSecret()[6:]} {
		if err := CheckSecret(s); err == nil {
			t.Errorf("%q is taken", s)
		} else if len(s) > 12 && strings.Contains(err.Error(), s[6:]) {
			t.Errorf("the error shows %q", s)
		}
	}
}

// Whatever strangers send, it is refused by a code, and nothing of it is believed.
func FuzzVerify(f *testing.F) {
	f.Add("evt_1", "1614265330", exampleSignature, exampleBody, "t=1,v1=00")
	f.Add("", "-1", "v1,", "", ",,==v1=t=")
	f.Fuzz(func(t *testing.T, id, stamp, signature, body, compat string) {
		h := http.Header{HeaderID: {id}}
		h.Set(HeaderID, id)
		h.Set(HeaderTimestamp, stamp)
		h.Set(HeaderSignature, signature)
		h.Set(headerCompatSignature, compat)
		secret := NewSecret()
		if Verify(secret, h, []byte(body), time.Unix(exampleSeconds, 0)) == nil || VerifyCompat(secret, h, []byte(body), time.Unix(exampleSeconds, 0)) == nil {
			t.Error("believed")
		}
	})
}
