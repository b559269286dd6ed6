package ledger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// An object is shown as what it is, however it is printed or logged: never with its body, its id or its group.
func TestObjectIsNotShown(t *testing.T) {
	o := ledger.Object{Kind: "key", ID: "secret-id", Group: "secret-group", Version: 3, Body: []byte(`"secret-body"`)}
	list := []ledger.Object{o}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "object", o, "pointer", &o)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "object", o, "pointer", &o)
	shown := log.String()
	for _, v := range []any{o, &o, list, map[string]ledger.Object{"a": o}, struct{ O ledger.Object }{o}, fmt.Errorf("x: %v", o)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			shown += fmt.Sprintf(verb, v)
		}
	}
	for _, secret := range []string{"secret", "115 101 99", "736563", "0x73"} {
		if strings.Contains(shown, secret) {
			t.Errorf("%q is shown: %s", secret, shown)
		}
	}
	if !strings.Contains(log.String(), "key of 13 bytes, version 3") {
		t.Errorf("the log does not tell what it is: %s", log.String())
	}
	broken := o
	broken.Body = []byte("secret {")
	if _, err := broken.Next(); !errors.Is(err, ledger.ErrObject) || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows it: %v", err)
	}
}

// What may be stored can be exported and stored elsewhere as it is, and what is stored again stays as it is.
func TestObjectTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(what string) time.Time {
			if rapid.Bool().Draw(t, "no "+what) {
				return time.Time{}
			}
			return time.Unix(rapid.Int64Range(-1<<35, 1<<35).Draw(t, what), rapid.Int64Range(0, 999_999_999).Draw(t, what+" ns"))
		}
		o := ledger.Object{
			Kind: rapid.StringMatching(`[a-zA_]{0,34}`).Draw(t, "kind"), ID: rapid.StringN(0, 130, 130).Draw(t, "id"),
			Group: rapid.StringMatching(`[ -~]{0,5}`).Draw(t, "group"), Version: rapid.SampledFrom([]int64{-1, 0, 7, math.MaxInt64}).Draw(t, "version"),
			Body: []byte(rapid.SampledFrom([]string{"", "1", "{}", "{"}).Draw(t, "body")), Due: at("due"), Expires: at("expires"),
		}
		next, err := o.Next()
		if err != nil {
			if !errors.Is(err, ledger.ErrObject) {
				t.Errorf("%v, want ErrObject", err)
			}
			return
		}
		if next.Version != o.Version+1 || next.Due.IsZero() != o.Due.IsZero() || next.Expires.IsZero() != o.Expires.IsZero() {
			t.Errorf("%+v became %+v", o.Due, next.Due)
		}
		if err := next.Check(); err != nil {
			t.Errorf("what was stored can't be: %v", err)
		}
		again, err := next.Next()
		a, _ := json.Marshal([]any{next.Due, next.Expires})
		b, _ := json.Marshal([]any{again.Due, again.Expires})
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s became %s, %v", a, b, err)
		}
	})
}

// Each error of objects is one of those that callers ask for, and speaks of objects.
func TestObjectErrors(t *testing.T) {
	for err, want := range map[error]error{
		ledger.ErrNoObject: ledger.ErrNotFound, ledger.ErrObjectExists: ledger.ErrExists, ledger.ErrObjectChanged: ledger.ErrConflict,
	} {
		if !errors.Is(fmt.Errorf("x: %w", err), want) || !strings.Contains(err.Error(), "object") {
			t.Errorf("%v is no %v", err, want)
		}
	}
}
