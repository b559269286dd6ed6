package dashboard_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/management/dashboard"
)

func ask(t *testing.T, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	mux := http.NewServeMux()
	dashboard.Add(mux, "/ops")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

var (
	references = regexp.MustCompile(`(?:href|src)="([^"#]+)"`)
	imports    = regexp.MustCompile(`from '\./([^']+)'`)
	elsewhere  = regexp.MustCompile(`(?i:https?://|"//|@import)|\burl\(`)
	inline     = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+="|javascript:|<script(?:\s[^>]*)?>[^<]`)
	sinks      = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|localStorage|document\.cookie`)
	moduleID   = regexp.MustCompile(`\$\('([a-z-]+)'\)`)
)

// All that the page refers to is there, with its type and the policy, and is of ours.
func TestFilesAreThere(t *testing.T) {
	page := ask(t, "/ops/dashboard")
	if page.Code != http.StatusOK || page.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatal(page.Code, page.Header())
	}
	want := map[string]bool{}
	for _, m := range references.FindAllStringSubmatch(page.Body.String(), -1) {
		if m[1] != "docs" { // the API's
			want["/ops/"+m[1]] = true
		}
	}
	if len(want) != 3 {
		t.Errorf("the page refers to %v", want)
	}
	seen := map[string]bool{}
	for len(want) > len(seen) {
		for path := range want {
			if seen[path] {
				continue
			}
			seen[path] = true
			f := ask(t, path)
			if f.Code != http.StatusOK || f.Body.Len() == 0 || f.Header().Get("Content-Type") == "" || f.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %d %v", path, f.Code, f.Header())
			}
			if strings.HasSuffix(path, ".js") {
				for _, m := range imports.FindAllStringSubmatch(f.Body.String(), -1) {
					want["/ops/dashboard/js/"+m[1]] = true
				}
				if found := sinks.FindString(f.Body.String()); found != "" {
					t.Errorf("%s uses %s", path, found)
				}
				for _, m := range moduleID.FindAllStringSubmatch(f.Body.String(), -1) {
					if !strings.Contains(page.Body.String(), `id="`+m[1]+`"`) {
						t.Errorf("%s wants the element %s, which the page has not", path, m[1])
					}
				}
			}
			text := strings.ReplaceAll(f.Body.String(), "http://www.w3.org/2000/svg", "")
			if found := elsewhere.FindString(text); found != "" {
				t.Errorf("%s wants %s", path, found)
			}
		}
	}
	modules, err := os.ReadDir("js")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if !want["/ops/dashboard/js/"+m.Name()] {
			t.Errorf("%s is served, and nothing refers to it", m.Name())
		}
	}
	if found := inline.FindString(page.Body.String()); found != "" {
		t.Errorf("the page has what its policy forbids: %s", found)
	}
}

// The policy lets the page run its own files, and ask its own origin; nothing else.
func TestPolicy(t *testing.T) {
	policy := ask(t, "/ops/dashboard").Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%s is not in %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "data:") {
		t.Error(policy)
	}
}

// A file is not sent again that is there; and a path with a slash leads to the page, wherever that stands.
func TestCaching(t *testing.T) {
	tag := ask(t, "/ops/dashboard/app.css").Header().Get("ETag")
	if again := ask(t, "/ops/dashboard/app.css", "If-None-Match", tag); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("%d with %d bytes", again.Code, again.Body.Len())
	}
	if f := ask(t, "/ops/dashboard/page.html"); f.Code != http.StatusNotFound {
		t.Errorf("the page is there twice: %d", f.Code)
	}
	if f := ask(t, "/ops/dashboard/"); f.Code != http.StatusPermanentRedirect || f.Header().Get("Location") != "../dashboard" {
		t.Errorf("%d to %s", f.Code, f.Header().Get("Location"))
	}
	for path, want := range map[string]bool{"/dashboard": true, "/dashboard/app.css": true, "/dashboards": false, "/": false} {
		if dashboard.Has(path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
}
