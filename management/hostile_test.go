package management_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// A secret where an id should be is neither in the audit nor in the log.
func TestASecretInAWrongPlace(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	whsec := "whsec_c2hpYmJvbGV0aHNoaWJib2xldGg"
	for _, c := range []struct{ method, path string }{
		{http.MethodDelete, "/v1/api-keys/" + mine}, {http.MethodPost, "/v1/payments/x" + mine + "/refund"}, {http.MethodPost, "/v1/webhooks/" + whsec + "/rotate-secret"},
	} {
		if a := o.live(mine, c.method, c.path, "", "Idempotency-Key", c.path); a.status != http.StatusNotFound && a.status != http.StatusConflict {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
	}
	if a := o.live(mine, http.MethodPost, "/v1/api-keys", `{"label":"x","scopes":["access","`+mine+`"]}`, "Idempotency-Key", "k"); a.status != http.StatusBadRequest ||
		strings.Contains(a.body, mine[10:]) {
		t.Errorf("as a scope: %d %s", a.status, a.body)
	}
	o.away.Store(true)
	if a := o.live(mine, http.MethodGet, "/v1/api-keys/"+mine, ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("%d", a.status)
	}
	o.away.Store(false)
	kept := o.log.String()
	if !strings.Contains(kept, "an operation failed") || !strings.Contains(kept, "an operator's call") {
		t.Error("nothing was logged")
	}
	deeds, err := o.store.Objects(t.Context(), "operator_audit", "", "", 100)
	if err != nil || len(deeds) != 4 {
		t.Fatal(len(deeds), err)
	}
	for i := range deeds {
		kept += string(deeds[i].Body)
	}
	for _, s := range []string{mine, whsec} {
		if strings.Contains(kept, s[10:]) {
			t.Errorf("%s… is kept in %s", s[:10], kept)
		}
	}
}

// No cell of an export is a formula, whatever a spreadsheet takes for the end of one.
func TestExportedFormulas(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	for i, host := range []string{"=1+1", "a;=1+1", "a;@b", "a\t-1", " =1", "a; =1", "＝1+1", "+1", "a;\"=1", "=1;=2"} {
		o.host = host
		o.claim(base, int64(i+1), "")
	}
	o.host = "a-b=c;d=e+f"
	o.claim(base, 99, "")
	a := o.live(mine, http.MethodGet, "/v1/payments/export", "")
	if !strings.Contains(a.body, ",a-b=c;d=e+f,") {
		t.Errorf("what is no formula was changed: %s", a.body)
	}
	for _, comma := range ",;\t" {
		r := csv.NewReader(strings.NewReader(a.body))
		r.Comma, r.LazyQuotes, r.FieldsPerRecord = comma, true, -1
		rows, err := r.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			for _, cell := range row {
				if bare := strings.Trim(cell, ` "`); strings.TrimLeft(bare, "=+-@＝") != bare {
					t.Errorf("cut at %q there is a cell %q", comma, cell)
				}
			}
		}
	}
}

// Who is told to try again may do so with the same key.
func TestWhatPassesIsNotKept(t *testing.T) {
	o := newOffice(t)
	p := o.claim(base, 1, "", failed...)
	_, mine := o.key(apikey.Live, 0)
	again := true
	o.shop.Update = func(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
		if again {
			return ledger.Payment{}, ledger.ErrConflict
		}
		return o.store.Update(ctx, id, version, changes...)
	}
	retry := func() answer {
		return o.live(mine, http.MethodPost, "/v1/payments/"+p.ID+"/refund", "", "Idempotency-Key", "k")
	}
	if a := retry(); statusAndCode(a) != "409 resource.conflict" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	again = false
	if a := retry(); a.status != http.StatusAccepted {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// slowBody is a request's body that does not come.
type slowBody struct{ deadline *time.Time }

func (b slowBody) Read([]byte) (int, error) {
	if b.deadline.IsZero() {
		return 0, io.ErrNoProgress
	}
	return 0, os.ErrDeadlineExceeded
}

func (slowBody) Close() error { return nil }

// deadlined is an answer whose reading can be ended.
type deadlined struct {
	*httptest.ResponseRecorder
	at *time.Time
}

func (d deadlined) SetReadDeadline(at time.Time) error {
	*d.at = at
	return nil
}

// Who does not send the body that it has begun does not hold the ledger open.
func TestABodyThatDoesNotCome(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	for _, headers := range [][]string{{"Idempotency-Key", "k"}, nil} {
		var at time.Time
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/webhooks/x/test", slowBody{&at})
		for _, h := range append([][]string{{"Authorization", "Bearer " + mine}, {"X-Network", "mainnet"}}, headers) {
			if len(h) == 2 {
				r.Header.Set(h[0], h[1])
			}
		}
		w := deadlined{httptest.NewRecorder(), &at}
		o.remote.ServeHTTP(w, r)
		if w.Code != http.StatusRequestTimeout {
			t.Errorf("%v: %d %s", headers, w.Code, w.Body)
		}
	}
}

// A cursor that is none is refused before any store is asked.
func TestCursorsThatAreNone(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	for _, path := range []string{"/v1/api-keys", "/v1/payments", "/v1/audit", "/v1/tokens", "/v1/refunds"} {
		for _, c := range []string{"%00", "%ff", "a%20b", strings.Repeat("a", 129)} {
			if a := o.live(mine, http.MethodGet, path+"?cursor="+c, ""); statusAndCode(a) != "400 request.invalid" {
				t.Errorf("%s, %s: %d %s", path, c, a.status, a.body)
			}
		}
	}
}

// A header Accept that is none is answered as if it were not there: to who has no key, and after something was done, which would else be done again.
func TestAcceptThatIsNone(t *testing.T) {
	o := newOffice(t)
	_, mine := o.key(apikey.Live, 0)
	for _, accept := range []string{"application/problem+json;,application/json", "application/json;,x", "json", ";", ",", ";,;,"} {
		if a := ask(t, o.remote, http.MethodGet, "/v1/payments", "", "Accept", accept); a.status != http.StatusUnauthorized {
			t.Errorf("%q without a key: %d %s", accept, a.status, a.body)
		}
		a := o.live(mine, http.MethodPost, "/v1/api-keys", `{"label":"x","scopes":["access"]}`, "Idempotency-Key", accept, "Accept", accept)
		if a.status != http.StatusCreated || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %v %s", accept, a.status, a.header, a.body)
		}
	}
}

// What a caller sends costs little, though it be wrong at every byte; and of a query that can't be read in full nothing is answered.
func TestWhatIsWrongCostsLittle(t *testing.T) {
	o := newOffice(t)
	_, consumer := o.key(apikey.Live, 0, apikey.Access)
	_, mine := o.key(apikey.Live, 0)
	var unknown strings.Builder
	for i := range 700 {
		fmt.Fprintf(&unknown, "a%d&", i)
	}
	for _, query := range []string{strings.Repeat("&", 900_000) + "=", unknown.String(), "key=a;windowDays=1", "%zz=1", "windowDays=1&%=1"} {
		a := o.live(consumer, http.MethodGet, "/v1/api-keys/usage?"+query, "")
		if statusAndCode(a) != "400 request.invalid" || len(a.body) > 4096 {
			t.Errorf("%.20s…: %d, %d bytes: %.200s", query, a.status, len(a.body), a.body)
		}
	}
	wrong := `{"label":"x","scopes":[` + strings.Repeat("1,", 30_000) + `1]}`
	if a := o.live(mine, http.MethodPost, "/v1/api-keys", wrong, "Idempotency-Key", "k"); statusAndCode(a) != "400 request.invalid" || len(a.body) > 4096 {
		t.Errorf("a body: %d, %d bytes: %.200s", a.status, len(a.body), a.body)
	}
}
