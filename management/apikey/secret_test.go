package apikey_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// A secret looks as it is documented, is read back, and is told from everything that differs from it in one character.
func TestSecret(t *testing.T) {
	for _, mode := range []apikey.Mode{apikey.Test, apikey.Live} {
		s, err := apikey.NewSecret(rand.Reader, mode)
		if err != nil {
			t.Fatal(err)
		}
		text := s.Reveal()
		if !regexp.MustCompile(`^sk_` + string(mode) + `_[0-9A-Za-z]{49}$`).MatchString(text) {
			t.Errorf("a secret is %q", text)
		}
		back, err := apikey.ParseSecret(text)
		if err != nil || back != s || back.Mode() != mode {
			t.Errorf("%q reads as %v, %v", text, back, err)
		}
		if s.Prefix() != text[:14] || !regexp.MustCompile(`^ak_[a-z2-7]{26}$`).MatchString(s.ID()) {
			t.Errorf("prefix %q, id %q", s.Prefix(), s.ID())
		}
		for i := range text {
			for _, c := range []byte("0zA_ ") {
				if wrong := text[:i] + string(c) + text[i+1:]; wrong != text {
					if _, err := apikey.ParseSecret(wrong); err == nil {
						t.Errorf("%q is read though %q is right", wrong, text)
					}
				}
			}
		}
		for _, wrong := range []string{"", "sk_", s.Prefix(), text + "0", text[:len(text)-1], " " + text, strings.ToUpper(text)} {
			if _, err := apikey.ParseSecret(wrong); err == nil {
				t.Errorf("%q is read", wrong)
			}
		}
	}
}

// The other mode's name in front of the same characters is no key: the checksum holds it.
func TestSecretHoldsItsMode(t *testing.T) {
	s, err := apikey.NewSecret(rand.Reader, apikey.Test)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := apikey.ParseSecret("sk_live_" + strings.TrimPrefix(s.Reveal(), "sk_test_")); err == nil {
		t.Error("a test key is read as a live one")
	}
}

// However a secret is printed, it does not come out.
func TestSecretIsNotPrinted(t *testing.T) {
	s, err := apikey.NewSecret(rand.Reader, apikey.Live)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "secret", s, "in", map[string]any{"a": s})
	printed := fmt.Sprint(s) + fmt.Sprintf("%v %+v %#v %q %s", s, s, s, s, []apikey.Secret{s}) + log.String()
	if _, err := json.Marshal(map[string]any{"secret": s}); err == nil {
		t.Error("it is encoded")
	}
	if strings.Contains(printed, s.Reveal()) || strings.Contains(printed, s.Reveal()[20:40]) {
		t.Errorf("it is in %s", printed)
	}
}

// Secrets of any bytes have one length, and none has the id of another.
func TestSecretProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "a")
		b := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "b")
		s, err := apikey.NewSecret(bytes.NewReader(a), apikey.Live)
		if err != nil {
			t.Fatal(err)
		}
		o, err := apikey.NewSecret(bytes.NewReader(b), apikey.Live)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Reveal()) != 57 {
			t.Fatalf("%d characters", len(s.Reveal()))
		}
		if bytes.Equal(a, b) != (s.ID() == o.ID()) || bytes.Equal(a, b) != (s.Reveal() == o.Reveal()) {
			t.Fatalf("%x and %x give %s and %s", a, b, s.ID(), o.ID())
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	s, err := apikey.NewSecret(rand.Reader, apikey.Test)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Reveal())
	f.Add("sk_live_" + strings.Repeat("0", 49))
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := apikey.ParseSecret(text); err == nil && (s.Reveal() != text || len(text) != 57) {
			t.Errorf("%q reads as %q", text, s.Reveal())
		}
	})
}
