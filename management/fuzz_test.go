package management_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// Whatever is sent to an operation is answered, and never as if the fault were here.
func FuzzRequest(f *testing.F) {
	o := newOffice(f)
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(o.remote.Spec(), &doc); err != nil {
		f.Fatal(err)
	}
	var operations [][2]string
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			operations = append(operations, [2]string{strings.ToUpper(method), path})
		}
	}
	for i := range operations {
		f.Add(uint8(i), "pay_aax", "limit=1&cursor=1-pay_aax", "application/problem+json;,x", "application/json;q=+", `{"label":"x","scopes":["access"]}`)
	}
	f.Add(uint8(0), "%", "until=0000-01-01T00:00:00Z&since=;", ";", "text/plain", "[")
	f.Fuzz(func(t *testing.T, operation uint8, id, query, accept, contentType, body string) {
		o.t, o.store = t, storetest.NewMemory(o.now, false) // each begins with an empty one
		o.shop.Store, o.shop.Revoke = o.store, o.store.Revoke
		o.log.Reset()
		_, secret := o.key(apikey.Live, 0)
		op := operations[int(operation)%len(operations)]
		path := strings.NewReplacer("{id}", url.PathEscape(id), "{delivery}", url.PathEscape(id)).Replace(op[1])
		r := httptest.NewRequestWithContext(t.Context(), op[0], "/", strings.NewReader(body))
		if u, err := url.Parse(path); err == nil {
			r.URL = u
		}
		r.URL.RawQuery = query
		r.Header = http.Header{
			"Authorization": {"Bearer " + secret}, "X-Network": {"mainnet"}, "Accept": {accept}, "Content-Type": {contentType}, "Idempotency-Key": {"k"},
		}
		w := httptest.NewRecorder()
		o.remote.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%s %s: %d %s", op[0], r.URL, w.Code, w.Body)
		}
	})
}
