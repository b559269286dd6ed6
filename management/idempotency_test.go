package management_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// Of 50 calls with one key at the same time one is made; the others are told to come again, and are then told what came of it.
func TestIdempotencyInParallel(t *testing.T) {
	o := newOffice(t)
	_, secret := o.key(apikey.Live, 0)
	var wg sync.WaitGroup
	var made, waiting, replayed atomic.Int64
	for range 50 {
		wg.Go(func() {
			a := o.live(secret, http.MethodPost, "/v1/api-keys", `{"label":"x","scopes":["access"]}`, "Idempotency-Key", "k-1")
			switch {
			case a.status == http.StatusCreated && a.header.Get("Idempotency-Replayed") == "true":
				replayed.Add(1)
			case a.status == http.StatusCreated:
				made.Add(1)
			case statusAndCode(a) == "409 idempotency.in_progress" && a.header.Get("Retry-After") == "1":
				waiting.Add(1)
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 || waiting.Load()+replayed.Load() != 49 {
		t.Errorf("%d made, %d wait, %d replayed", made.Load(), waiting.Load(), replayed.Load())
	}
	if n := len(decode[listed[management.APIKey]](t, o.live(secret, http.MethodGet, "/v1/api-keys", "")).Data); n != 2 {
		t.Errorf("there are %d keys", n)
	}
	if a := o.live(secret, http.MethodPost, "/v1/api-keys", `{"label":"x","scopes":["access"]}`, "Idempotency-Key", `"k-1"`); a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("with quotes: %d %s", a.status, a.body)
	}
}

// What makes a request another one is refused; what belongs to somebody else is not touched.
func TestIdempotencyRules(t *testing.T) {
	o := newOffice(t)
	_, one := o.key(apikey.Live, 0)
	_, two := o.key(apikey.Live, 0)
	post := func(secret, body string, keys ...string) answer {
		t.Helper()
		var headers []string
		for _, k := range keys {
			headers = append(headers, "Idempotency-Key", k)
		}
		return o.live(secret, http.MethodPost, "/v1/api-keys", body, headers...)
	}
	const body, other = `{"label":"x","scopes":["access"]}`, `{"label":"y","scopes":["access"]}`
	first := decode[management.APIKeyWithSecret](t, post(one, body, "a"))
	for name, tc := range map[string]struct {
		a    answer
		want string
	}{
		"no key":             {post(one, body), "400 idempotency.key_required"},
		"an empty one":       {post(one, body, ""), "400 idempotency.key_invalid"},
		"empty quotes":       {post(one, body, `""`), "400 idempotency.key_invalid"},
		"half a quote":       {post(one, body, `"a`), "400 idempotency.key_invalid"},
		"two":                {post(one, body, "a", "b"), "400 idempotency.key_invalid"},
		"256 characters":     {post(one, body, strings.Repeat("k", 256)), "400 idempotency.key_invalid"},
		"not ASCII":          {post(one, body, "schlüssel"), "400 idempotency.key_invalid"},
		"255 characters":     {post(one, body, strings.Repeat("k", 255)), "201 "},
		"another body":       {post(one, other, "a"), "422 idempotency.conflict"},
		"somebody else's":    {post(two, other, "a"), "201 "},
		"a failure":          {post(one, `{"label":"x","scopes":["root"]}`, "f"), "400 request.invalid"},
		"after the failure?": {post(one, body, "g"), "201 "},
	} {
		if got := statusAndCode(tc.a); got != tc.want {
			t.Errorf("%s: %d %s, want %s", name, tc.a.status, tc.a.body, tc.want)
		}
	}
	// After what was refused, the same key may be used for what is right.
	if a := post(one, body, "f"); a.status != http.StatusCreated {
		t.Errorf("after a 400: %d %s", a.status, a.body)
	}
	// An outcome is an outcome, also if it is a refusal.
	path := "/v1/refunds/pay_aanobody/retry"
	before := o.live(one, http.MethodPost, path, "", "Idempotency-Key", "n")
	after := o.live(one, http.MethodPost, path, "", "Idempotency-Key", "n")
	if statusAndCode(before) != "404 payment.not_found" || statusAndCode(after) != "404 payment.not_found" || after.header.Get("Idempotency-Replayed") != "true" ||
		before.body != after.body {
		t.Errorf("a refusal: %s, then %v %s", before.body, after.header, after.body)
	}
	o.pass(24 * time.Hour)
	if again := decode[management.APIKeyWithSecret](t, post(one, body, "a")); again.ID == first.ID {
		t.Error("after a day the key is still kept")
	}
}

// dying takes the reservation of an Idempotency-Key, and then nothing any more.
type dying struct {
	*storetest.Memory
	dead bool
}

func (d *dying) PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	if d.dead {
		return ledger.Object{}, errDead
	}
	d.dead = o.Kind == "idempotency"
	return d.Memory.PutObject(ctx, o)
}

func (d *dying) DeleteObject(ctx context.Context, kind, id string, version int64) error {
	if d.dead {
		return errDead
	}
	return d.Memory.DeleteObject(ctx, kind, id, version)
}

var errDead = errors.New("the process died")

// A call whose instance died holds its key for a minute, and is then made again.
func TestIdempotencyOfTheDead(t *testing.T) {
	o := newOffice(t)
	_, secret := o.key(apikey.Live, 0)
	o.shop.Store = &dying{Memory: o.store}
	post := func() answer {
		return o.live(secret, http.MethodPost, "/v1/api-keys", `{"label":"x","scopes":["access"]}`, "Idempotency-Key", "k")
	}
	if a := post(); a.status != http.StatusServiceUnavailable {
		t.Fatalf("%d %s", a.status, a.body)
	}
	o.shop.Store = o.store
	if a := post(); statusAndCode(a) != "409 idempotency.in_progress" {
		t.Errorf("at once: %d %s", a.status, a.body)
	}
	o.pass(time.Minute)
	if a := post(); a.status != http.StatusCreated || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("after a minute: %d %s", a.status, a.body)
	}
}
