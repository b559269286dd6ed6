package bed

import (
	"fmt"
	"io"
	"net/http"
)

// Echo is an upstream that says what it was asked, body and all.
func Echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
}
