// Package dashboard is the page that shows people how their shop is doing. It is made of files that stand in the program, is served without
// a key, and knows nothing: all that it shows it asks the management API for, in its reader's browser and with its reader's key.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed page.html app.css icon.svg js
var files embed.FS

// Path is where the page is, after an API's prefix.
const Path = "/dashboard"

// Has reports whether a path, after an API's prefix, is one of the dashboard's.
func Has(p string) bool { return p == Path || strings.HasPrefix(p, Path+"/") }

// policy lets the page run its own files and ask its own origin; nothing else, whatever gets into it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Add puts the dashboard into an API's mux.
func Add(mux *http.ServeMux, prefix string) {
	for p, name := range served() {
		mux.Handle("GET "+prefix+p, newFile(name))
	}
	// The page's references are relative, so that it may stand anywhere; so is this one.
	mux.HandleFunc("GET "+prefix+Path+"/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", ".."+Path)
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// served are the paths of the files.
func served() map[string]string {
	out := map[string]string{Path: "page.html"}
	for _, name := range names(".") {
		if name != "page.html" {
			out[Path+"/"+name] = name
		}
	}
	return out
}

// names are those of all files in a folder.
func names(folder string) (out []string) {
	entries, err := files.ReadDir(folder)
	if err != nil { // it stands in the program
		return nil
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		if e.IsDir() {
			out = append(out, names(name)...)
		} else {
			out = append(out, name)
		}
	}
	return out
}

// file is one that is served.
type file struct {
	body []byte
	mime string
	tag  string
}

// types are told here, as those of the machine may differ.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func newFile(name string) *file {
	body, err := files.ReadFile(name)
	if err != nil { // it stands in the program
		return &file{}
	}
	sum := sha256.Sum256(body)
	return &file{body: body, mime: types[path.Ext(name)], tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// ServeHTTP implements http.Handler.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // it is asked for each time, and sent when it is another
	h.Set("ETag", f.tag)
	if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.mime)
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.body)
	}
}
