package management_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

type rotation struct {
	Predecessor   management.APIKey           `json:"predecessor"`
	Successor     management.APIKeyWithSecret `json:"successor"`
	OverlapEndsAt time.Time                   `json:"overlapEndsAt"`
}

type listed[T any] struct {
	Data []T             `json:"data"`
	Page management.Page `json:"page"`
}

// The first key is made at the machine; with it others are made, whose secrets are told once.
func TestKeysAreMade(t *testing.T) {
	o := newOffice(t)
	first := decode[management.APIKeyWithSecret](t, ask(t, o.local, http.MethodPost, "/x402/v1/api-keys",
		`{"label":"me","mode":"live","scopes":["keys:manage","payments:read","access"]}`, "Idempotency-Key", "first"))
	if first.CreatedBy != "admin" || first.Status != "active" || first.Network != "mainnet" || first.Prefix != (*first.Secret)[:14] {
		t.Errorf("%+v", first)
	}
	made := o.live(*first.Secret, http.MethodPost, "/v1/api-keys", `{"label":"reports","scopes":["payments:read"],"expiresInSeconds":3600}`, "Idempotency-Key", "second")
	second := decode[management.APIKeyWithSecret](t, made)
	if made.status != http.StatusCreated || second.CreatedBy != first.ID || second.ExpiresAt == nil || second.Mode != "live" {
		t.Errorf("%d %s", made.status, made.body)
	}
	if a := o.live(*second.Secret, http.MethodGet, "/v1/payments", ""); a.status != http.StatusOK {
		t.Errorf("the second key: %d %s", a.status, a.body)
	}
	current := decode[management.APIKey](t, o.live(*second.Secret, http.MethodGet, "/v1/api-keys/current", ""))
	if current.ID != second.ID || current.LastUsedAt == nil {
		t.Errorf("it is told %+v", current)
	}
	for _, path := range []string{"/v1/api-keys", "/v1/api-keys/" + second.ID} {
		a := o.live(*first.Secret, http.MethodGet, path, "")
		if a.status != http.StatusOK || strings.Contains(a.body, `"secret"`) || strings.Contains(a.body, (*second.Secret)[14:]) || !strings.Contains(a.body, second.ID) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if strings.Contains(o.log.String(), (*first.Secret)[14:]) || strings.Contains(o.log.String(), (*second.Secret)[14:]) {
		t.Error("the log has a secret")
	}
}

// A key gives no scope and no mode that it does not have, and sees no keys of the other network.
func TestKeysNeverWiden(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0, apikey.KeysManage, apikey.PaymentsRead)
	strong, strongSecret := o.key(apikey.Live, 0)
	test, _ := o.key(apikey.Test, 0)
	for body, want := range map[string]string{
		`{"label":"x","scopes":["payments:read","payments:write"]}`: "403 apikey.role_insufficient_for_grants",
		`{"label":"x","scopes":["payments:read"],"mode":"test"}`:    "403 apikey.role_insufficient_for_grants",
		`{"label":"x","scopes":["root"]}`:                           "400 request.invalid",
		`{"label":"","scopes":["access"]}`:                          "400 request.invalid",
		`{"label":"x"}`:                                             "400 request.invalid",
		`{"label":"x","scopes":["payments:read"],"scope":"all"}`:    "400 request.invalid",
		`{`: "400 request.invalid",
	} {
		if a := o.live(live, http.MethodPost, "/v1/api-keys", body, "Idempotency-Key", body); statusAndCode(a) != want {
			t.Errorf("%s: %d %s, want %s", body, a.status, a.body, want)
		}
	}
	// To rotate a key is to have its successor.
	if a := o.live(live, http.MethodPost, "/v1/api-keys/"+strong.ID+"/rotate", "", "Idempotency-Key", "r"); statusAndCode(a) != "403 apikey.role_insufficient_for_grants" {
		t.Errorf("rotating a stronger key: %d %s", a.status, a.body)
	}
	for _, call := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/rotate"}} {
		if a := o.live(strongSecret, call[0], "/v1/api-keys/"+test.ID+call[1], "", "Idempotency-Key", call[0]); statusAndCode(a) != "404 apikey.not_found" {
			t.Errorf("%s of a test key with a live one: %d %s", call[0], a.status, a.body)
		}
	}
	for _, k := range decode[listed[management.APIKey]](t, o.live(strongSecret, http.MethodGet, "/v1/api-keys", "")).Data {
		if k.Mode != "live" {
			t.Errorf("a live key lists %+v", k)
		}
	}
}

// Rotation has an overlap in which both are good, and the old one's users are told; a call that is made again tells no secret.
func TestKeyRotationByAPI(t *testing.T) {
	var seen []string
	o := newOffice(t, func(c *management.Config) {
		c.Observe = func(event, mode string) { seen = append(seen, event+" "+mode) }
		c.KeyMaxAge = 90 * 24 * time.Hour
	})
	k, secret := o.key(apikey.Test, 0)
	a := o.test(secret, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "rotate-1")
	r := decode[rotation](t, a)
	if a.status != http.StatusCreated || r.Predecessor.ID != k.ID || r.Predecessor.Status != "rotating" || r.Successor.RotatedFrom != k.ID ||
		r.Successor.Secret == nil || r.OverlapEndsAt.Sub(time.UnixMicro(o.clock.Load())) != 7*24*time.Hour {
		t.Fatalf("%d %s", a.status, a.body)
	}
	again := o.test(secret, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "rotate-1")
	replayed := decode[rotation](t, again)
	if again.header.Get("Idempotency-Replayed") != "true" || replayed.Successor.ID != r.Successor.ID || replayed.Successor.Secret != nil ||
		!strings.Contains(again.body, `"secret":null`) {
		t.Errorf("made again: %v %s", again.header, again.body)
	}
	use := o.test(secret, http.MethodGet, "/v1/payments", "")
	if use.status != http.StatusOK || use.header.Get("X-Api-Key-Successor") != r.Successor.ID || use.header.Get("Sunset") != r.OverlapEndsAt.UTC().Format(http.TimeFormat) {
		t.Errorf("the old key is answered %d %v", use.status, use.header)
	}
	next := *r.Successor.Secret
	if a := o.test(next, http.MethodGet, "/v1/payments", ""); a.status != http.StatusOK || a.header.Get("Sunset") != "" {
		t.Errorf("the new key is answered %d %v", a.status, a.header)
	}
	if a := o.test(next, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "rotate-2"); statusAndCode(a) != "409 apikey.rotation_in_progress" {
		t.Errorf("rotated twice: %d %s", a.status, a.body)
	}
	o.pass(7 * 24 * time.Hour)
	if a := o.test(secret, http.MethodGet, "/v1/payments", ""); statusAndCode(a) != "401 apikey.expired" {
		t.Errorf("after the overlap: %d %s", a.status, a.body)
	}
	if a := o.test(next, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "rotate-3"); statusAndCode(a) != "410 apikey.expired" {
		t.Errorf("rotated after its end: %d %s", a.status, a.body)
	}
	// A leak: no overlap at all.
	leaked := decode[rotation](t, o.test(next, http.MethodPost, "/v1/api-keys/"+r.Successor.ID+"/rotate", `{"overlapSeconds":0}`, "Idempotency-Key", "leak"))
	if a := o.test(next, http.MethodGet, "/v1/payments", ""); statusAndCode(a) != "401 apikey.expired" {
		t.Errorf("the key that leaked: %d %s", a.status, a.body)
	}
	o.pass(90 * 24 * time.Hour)
	if a := o.test(*leaked.Successor.Secret, http.MethodGet, "/v1/payments", ""); a.status != http.StatusOK || a.header.Get("X-Api-Key-Rotation-Due") == "" {
		t.Errorf("an old key is answered %d %v", a.status, a.header)
	}
	if got := fmt.Sprint(seen); !strings.Contains(got, "apikey_rotated test") || !strings.Contains(got, "apikey_predecessor_used test") {
		t.Errorf("seen: %s", got)
	}
	for body, want := range map[string]string{`{"overlapSeconds":2592001}`: "400 request.invalid", `{"overlapSeconds":-1}`: "400 request.invalid", `{"overlap":"7d"}`: "400 request.invalid"} {
		if a := o.test(*leaked.Successor.Secret, http.MethodPost, "/v1/api-keys/"+leaked.Successor.ID+"/rotate", body, "Idempotency-Key", body); statusAndCode(a) != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

// Revoking is at once, may be repeated, and ends an overlap.
func TestKeyRevocationByAPI(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	k, secret := o.key(apikey.Live, 0)
	decode[rotation](t, o.live(mine, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "r"))
	for range 2 {
		if a := o.live(mine, http.MethodDelete, "/v1/api-keys/"+k.ID, ""); a.status != http.StatusNoContent || a.body != "" {
			t.Errorf("revoking: %d %s", a.status, a.body)
		}
	}
	if a := o.live(secret, http.MethodGet, "/v1/payments", ""); statusAndCode(a) != "401 apikey.revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := o.live(mine, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "again"); statusAndCode(a) != "410 apikey.revoked" {
		t.Errorf("rotated: %d %s", a.status, a.body)
	}
}

// What is kept in the ledger's objects, answers to Idempotency-Keys and the audit among it, has no secret in it.
func TestNoSecretIsKept(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	made := decode[management.APIKeyWithSecret](t, o.live(mine, http.MethodPost, "/v1/api-keys", `{"label":"a","scopes":["access"]}`, "Idempotency-Key", "a"))
	turned := decode[rotation](t, o.live(mine, http.MethodPost, "/v1/api-keys/"+made.ID+"/rotate", "", "Idempotency-Key", "b"))
	kept := ""
	for _, kind := range []string{"api_key", "idempotency", "operator_audit"} {
		list, err := o.store.Objects(t.Context(), kind, "", "", 100)
		if err != nil || len(list) == 0 {
			t.Fatalf("%s: %d objects, %v", kind, len(list), err)
		}
		for _, obj := range list {
			var replay struct{ Body []byte }
			if err := json.Unmarshal(obj.Body, &replay); err != nil {
				t.Fatal(err)
			}
			kept += obj.ID + string(obj.Body) + string(replay.Body)
		}
	}
	for _, secret := range []string{mine, *made.Secret, *turned.Successor.Secret} {
		if strings.Contains(kept, secret[14:]) || strings.Contains(o.log.String(), secret[14:]) {
			t.Error("a secret is kept")
		}
	}
}
