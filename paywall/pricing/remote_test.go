package pricing

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shop is an endpoint that knows prices.
type shop struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Value // http.HandlerFunc
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := new(shop)
	s.says(http.StatusOK, `{"price":"0.05"}`)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.answer.Load().(http.HandlerFunc)(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *shop) says(status int, body string) {
	s.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
}

func pricer(t *testing.T, c Config) *Remote {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// An answer is good for a while, for what was asked; then it is asked for anew. A failure is not kept.
func TestPriceIsKept(t *testing.T) {
	s := newShop(t)
	now := time.Unix(1_800_000_000, 0)
	r := pricer(t, Config{URL: s.URL, Cache: 30 * time.Second, Now: func() time.Time { return now }})
	price := func(subject, want string, asked int64) {
		t.Helper()
		got, err := r.Price(t.Context(), subject)
		if got != want || (err == nil) != (want != "") || s.asked.Load() != asked {
			t.Errorf("%q %v, asked %d times", got, err, s.asked.Load())
		}
	}
	price("a", "0.05", 1)
	s.says(http.StatusOK, `{"price":"0.07"}`)
	price("a", "0.05", 1)
	price("b", "0.07", 2)
	now = now.Add(30 * time.Second)
	s.says(http.StatusInternalServerError, "")
	price("a", "", 3)
	price("a", "", 4)
	s.says(http.StatusOK, `{"price":"0.07"}`)
	price("a", "0.07", 5)
	if r.kept.Most != maxKept {
		t.Errorf("%d may be kept", r.kept.Most)
	}
}

// Those who ask the same at the same time ask once; one that leaves takes nobody with it.
func TestPriceIsAskedOnce(t *testing.T) {
	s := newShop(t)
	free := make(chan struct{})
	s.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-free
		_, _ = io.WriteString(w, `{"price":"0.05"}`)
	}))
	r := pricer(t, Config{URL: s.URL, Timeout: 20 * time.Second})
	first, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var served atomic.Int64
	ask := func(ctx context.Context) {
		if p, err := r.Price(ctx, "a"); err == nil && p == "0.05" {
			served.Add(1)
		}
	}
	wg.Go(func() { ask(first) })
	for s.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 31 {
		wg.Go(func() { ask(t.Context()) })
	}
	leave()
	close(free)
	wg.Wait()
	if served.Load() != 32 || s.asked.Load() > 2 { // who came after the answer asks anew
		t.Errorf("served %d, asked %d times", served.Load(), s.asked.Load())
	}
}

// Whatever else the endpoint does is no price; and its words go nowhere.
func TestNoPrice(t *testing.T) {
	s := newShop(t)
	r := pricer(t, Config{URL: s.URL + "/?key=hidden", Authorize: func(q *http.Request) error {
		q.Header.Set("Authorization", "Bearer hidden")
		return nil
	}})
	for name, f := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hidden", http.StatusInternalServerError) },
		"created":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) },
		"elsewhere": func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "/other?key=hidden", http.StatusFound)
		},
		"no JSON":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hidden") },
		"a number": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"price":0.05}`) },
		"null":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"price":null}`) },
		"empty":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"price":""}`) },
		"nothing":  func(http.ResponseWriter, *http.Request) {},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"price":"1`+strings.Repeat("0", maxAnswer)+`"}`)
		},
		"broken off":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"not in time": func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body); <-q.Context().Done() },
	} {
		if r.Timeout = 20 * time.Second; name == "not in time" { // that is waited for
			r.Timeout = time.Second
		}
		s.answer.Store(f)
		before := s.asked.Load()
		p, err := r.Price(t.Context(), "{}")
		if err == nil || p != "" || strings.Contains(err.Error(), "hidden") || s.asked.Load() != before+1 {
			t.Errorf("%s: %q %v, asked %d times", name, p, err, s.asked.Load()-before)
		}
	}
}

// An endpoint is not asked more than a few things at once: the others have no price.
func TestPriceOfACrowd(t *testing.T) {
	s := newShop(t)
	free := make(chan struct{})
	s.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-free
		_, _ = io.WriteString(w, `{"price":"0.05"}`)
	}))
	r := pricer(t, Config{URL: s.URL, Timeout: 20 * time.Second})
	var wg sync.WaitGroup
	for i := range atOnce {
		wg.Go(func() { _, _ = r.Price(t.Context(), time.Duration(i).String()) })
	}
	for s.asked.Load() < atOnce {
		time.Sleep(time.Millisecond)
	}
	r.Timeout = time.Millisecond
	if p, err := r.Price(t.Context(), "one more"); err == nil || s.asked.Load() != atOnce {
		t.Errorf("%q %v, asked %d", p, err, s.asked.Load())
	}
	close(free)
	wg.Wait()
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{
		{URL: "http://backend/price"},
		{URL: ""},
		{URL: "https://x", Timeout: time.Minute},
		{URL: "https://x", Timeout: -1},
		{URL: "https://x", Cache: -1},
		{URL: "https://x", Cache: 48 * time.Hour},
	} {
		if r, err := New(c); err == nil {
			r.Close()
			t.Errorf("%+v: taken", c)
		}
	}
}
