package doctor

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// front stands before a server, as a proxy, a provider or a fault would, and passes everything on. A lie changes answers.
type front struct {
	*httptest.Server

	mu     sync.Mutex
	target *url.URL
	lie    lie
}

// lie changes the answer to a request whose body was asked, or the request itself; nil parts change nothing.
type lie struct {
	request func(*http.Request)
	answer  func(r *http.Response, asked, body string) string
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := new(front)
	f.Server = httptest.NewServer(&httputil.ReverseProxy{Rewrite: f.rewrite, ModifyResponse: f.modify})
	t.Cleanup(f.Close)
	return f
}

// before says which server it stands before.
func (f *front) before(t *testing.T, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.target = u
}

func (f *front) tell(l lie) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lie = l
}

func (f *front) rewrite(r *httputil.ProxyRequest) {
	f.mu.Lock()
	target, change := f.target, f.lie.request
	f.mu.Unlock()
	r.SetURL(target)
	r.Out.Header.Del("Accept-Encoding")
	if r.Out.Header.Get("Origin") == "http://"+r.In.Host {
		r.Out.Header.Set("Origin", target.String()) // whoever asks an admin endpoint says so
	}
	if change != nil {
		change(r.Out)
	}
	if r.Out.Body == nil {
		return
	}
	body, err := io.ReadAll(r.Out.Body)
	if err == nil {
		r.Out.Body, r.Out.GetBody = io.NopCloser(bytes.NewReader(body)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
}

func (f *front) modify(r *http.Response) error {
	f.mu.Lock()
	change := f.lie.answer
	f.mu.Unlock()
	if change == nil {
		return nil
	}
	asked := ""
	if r.Request.GetBody != nil {
		if b, err := r.Request.GetBody(); err == nil {
			text, _ := io.ReadAll(b)
			asked = string(text)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	text := change(r, asked, string(body))
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	r.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}

// says replaces a text in the answers to requests of a path.
func says(in, old, text string) lie {
	return lie{answer: func(r *http.Response, _, body string) string {
		if strings.Contains(r.Request.URL.Path, in) {
			return strings.ReplaceAll(body, old, text)
		}
		return body
	}}
}

// drops leaves out a header.
func drops(header string) lie {
	return lie{answer: func(r *http.Response, _, body string) string {
		r.Header.Del(header)
		return body
	}}
}

// calls changes the chain's answers to calls of a method that have, if it is not empty, an argument.
func calls(method, argument, result string) lie {
	return lie{answer: func(_ *http.Response, asked, body string) string {
		var questions []struct {
			ID     json.RawMessage
			Method string
			Params json.RawMessage
		}
		var answers []map[string]json.RawMessage
		single := !strings.HasPrefix(asked, "[")
		if single {
			asked, body = "["+asked+"]", "["+body+"]"
		}
		if json.Unmarshal([]byte(asked), &questions) != nil || json.Unmarshal([]byte(body), &answers) != nil {
			return body
		}
		for _, q := range questions {
			for _, a := range answers {
				if q.Method == method && string(a["id"]) == string(q.ID) && strings.Contains(strings.ToLower(string(q.Params)), strings.ToLower(argument)) {
					a["result"] = json.RawMessage(strconv.Quote(result))
				}
			}
		}
		out, _ := json.Marshal(answers)
		if single {
			out = out[1 : len(out)-1]
		}
		return string(out)
	}}
}
