package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is what an endpoint was asked.
type asked struct {
	header http.Header
	body   map[string]any
}

// endpoint answers with the steps in turn, the last one again and again, and notes what it is asked.
func endpoint(t *testing.T, steps ...http.HandlerFunc) (*httptest.Server, func() []asked) {
	t.Helper()
	var mu sync.Mutex
	var list []asked
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body map[string]any
		_ = json.Unmarshal(raw, &body)
		mu.Lock()
		step := steps[min(len(list), len(steps)-1)]
		list = append(list, asked{r.Header.Clone(), body})
		mu.Unlock()
		step(w, r)
	}))
	t.Cleanup(s.Close)
	return s, func() []asked {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func client(t *testing.T, c Config) *Client {
	t.Helper()
	if c.Pause == 0 {
		c.Pause = time.Millisecond
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func sale() *Sale {
	return &Sale{
		Key: "pay_1", RequestID: "http-1", ChallengeID: "pay_1", ResourceID: "default", PlanID: "basic", TxHash: "0xabc", UnitAmount: "$0.10",
		PaymentID: "pay_1", WalletAddress: "0x1", Amount: "100000", Asset: "0x2", Network: "eip155:84532", TTLSeconds: 3600,
	}
}

// The contract of ISSUE_TOKEN_API: what is asked, and what of the answer is the credential.
func TestContract(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		want         Credential
	}{
		{"a token", `{"token":"abc"}`, Credential{"abc", "Bearer"}},
		{"a type of its own", `{"token":"abc","tokenType":"ApiKey","expiresAt":1}`, Credential{"abc", "ApiKey"}},
		{"no type", `{"token":"abc","tokenType":null}`, Credential{"abc", "Bearer"}},
		{"no token: all of it", "{ \"user\": \"u\",\n \"n\": 1.50 }", Credential{`{"user":"u","n":1.50}`, "custom"}},
		{"a token that is no string: all of it", `{"token":{"a":1},"tokenType":"x"}`, Credential{`{"token":{"a":1},"tokenType":"x"}`, "custom"}},
		{"a null token: all of it", `{"token":null,"x":1}`, Credential{`{"token":null,"x":1}`, "custom"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, asked := endpoint(t, says(201, tc.answer))
			got, err := client(t, Config{URL: s.URL + "/issue", Extra: map[string]any{"tier": "gold", "calls": json.RawMessage(`[1]`)}}).Issue(t.Context(), sale())
			if err != nil || got != tc.want {
				t.Fatalf("%+v %v", got, err)
			}
			q := asked()[0]
			if q.header.Get("Content-Type") != "application/json" || q.header.Get("Idempotency-Key") != "pay_1" || q.header.Get("Authorization") != "" {
				t.Errorf("asked with %v", q.header)
			}
			want := map[string]any{
				"requestId": "http-1", "challengeId": "pay_1", "resourceId": "default", "planId": "basic", "txHash": "0xabc", "unitAmount": "$0.10",
				"paymentId": "pay_1", "walletAddress": "0x1", "amount": "100000", "asset": "0x2", "network": "eip155:84532", "ttlSeconds": 3600.0,
				"tier": "gold", "calls": []any{1.0},
			}
			if fmt.Sprint(q.body) != fmt.Sprint(want) {
				t.Errorf("asked %v\nwant  %v", q.body, want)
			}
		})
	}
}

// What fails is tried again, with the same key and the same words, as long as that may help; what took too long is not.
func TestTries(t *testing.T) {
	const secret = "the backend's secret words"
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	broken := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	good := says(200, `{"token":"abc"}`)
	for _, tc := range []struct {
		name  string
		steps []http.HandlerFunc
		tries int
		late  bool
		want  string // in the error; empty: it succeeds
	}{
		{"at the last try", []http.HandlerFunc{says(500, secret), says(503, secret), good}, 3, false, ""},
		{"broken off", []http.HandlerFunc{broken, good}, 2, false, ""},
		{"too many requests", []http.HandlerFunc{says(429, secret), good}, 2, false, ""},
		{"never", []http.HandlerFunc{says(500, secret)}, 3, false, "status 500"},
		{"refused", []http.HandlerFunc{says(403, secret)}, 1, false, "status 403"},
		{"not there", []http.HandlerFunc{says(404, secret)}, 1, false, "status 404"},
		{"too late", []http.HandlerFunc{slow}, 1, true, "did not answer within"},
		{"late at the second try", []http.HandlerFunc{says(500, secret), slow}, 2, true, "did not answer within"},
		{"elsewhere", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/other")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, good}, 1, false, "status 307"},
		{"no JSON", []http.HandlerFunc{says(200, secret)}, 1, false, "something else than a JSON object"},
		{"a list", []http.HandlerFunc{says(200, `["`+secret+`"]`)}, 1, false, "something else than a JSON object"},
		{"null", []http.HandlerFunc{says(200, `null`)}, 1, false, "something else than a JSON object"},
		{"nothing", []http.HandlerFunc{says(204, ``)}, 1, false, "something else than a JSON object"},
		{"an empty object", []http.HandlerFunc{says(200, `{}`)}, 1, false, "empty"},
		{"an empty token", []http.HandlerFunc{says(200, `{"token":""}`)}, 1, false, "empty token"},
		{"a strange type", []http.HandlerFunc{says(200, `{"token":"x","tokenType":"a\r\nb"}`)}, 1, false, "no word"},
		{"endless", []http.HandlerFunc{says(200, `{"token":"`+strings.Repeat("x", MaxAnswer)+`"}`)}, 1, false, "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, asked := endpoint(t, tc.steps...)
			timeout := 20 * time.Second
			if tc.late { // that is waited for
				timeout = time.Second
			}
			c := client(t, Config{URL: s.URL + "/issue?key=" + url.QueryEscape(secret), Retries: 2, Timeout: timeout})
			got, err := c.Issue(t.Context(), sale())
			list := asked()
			if len(list) != tc.tries {
				t.Errorf("asked %d times", len(list))
			}
			for _, q := range list {
				if q.header.Get("Idempotency-Key") != "pay_1" || fmt.Sprint(q.body) != fmt.Sprint(list[0].body) {
					t.Errorf("a try is another: %v", q)
				}
			}
			if tc.want == "" {
				if err != nil || got.Token != "abc" {
					t.Errorf("%+v %v", got, err)
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Timeout() != tc.late || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v", err)
			}
			for _, hidden := range []string{secret, url.QueryEscape(secret), "127.0.0.1:" + s.URL[strings.LastIndex(s.URL, ":")+1:] + "/issue"} {
				if strings.Contains(fmt.Sprintf("%v %+v", err, err), hidden) {
					t.Errorf("the error tells %q: %v", hidden, err)
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := httptest.NewServer(http.NotFoundHandler())
		s.Close()
		_, err := client(t, Config{URL: s.URL + "/issue?key=hidden", Retries: 1}).Issue(t.Context(), sale())
		if e, ok := errors.AsType[*Error](err); !ok || e.Late || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%v", err)
		}
	})
	t.Run("its asker has no time", func(t *testing.T) {
		s, asked := endpoint(t, says(500, ""))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client(t, Config{URL: s.URL, Retries: 5, Pause: time.Hour}).Issue(ctx, sale())
		if e, ok := errors.AsType[*Error](err); !ok || !e.Late || len(asked()) != 1 {
			t.Errorf("%v, asked %d times", err, len(asked()))
		}
	})
}

// Whatever the seller adds of its own, our members stay ours.
func TestFieldsNeverOverride(t *testing.T) {
	for _, name := range append([]string{"", "TXHASH", "RequestID"}, members...) {
		if _, err := New(Config{URL: "https://x", Extra: map[string]any{name: "forged"}}); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", name, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		c := &Client{Config: Config{Extra: rapid.MapOf(rapid.SampledFrom(append([]string{"a", "b", "tier"}, members...)), rapid.String().AsAny()).Draw(t, "extra")}}
		raw, err := c.encode(sale()) // past the check of New
		if err != nil {
			t.Fatal(err)
		}
		var got Sale
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		want := *sale()
		want.Key = ""
		if got != want {
			t.Fatalf("%+v", got)
		}
	})
}

// The time that a client promises is never exceeded.
func TestLongest(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want time.Duration
	}{
		{Config{}, 15 * time.Second},
		{Config{Retries: 2}, 45*time.Second + 1800*time.Millisecond},
		{Config{Timeout: time.Second, Retries: 1, Pause: time.Second}, 3200 * time.Millisecond},
	} {
		tc.c.URL = "https://x.example"
		m, err := New(tc.c)
		if err != nil || m.Longest() != tc.want {
			t.Errorf("%+v: %v %v", tc.c, m.Longest(), err)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://backend.example.com/issue": true, "https://10.0.0.1/x": true, "http://localhost:3001/x": true, "http://127.0.0.1/x": true,
		"http://[::1]:80/x": true, "http://127.8.9.1": true,
		"http://backend:3001/x": false, "http://localhost.example.com/": false, "http://10.0.0.1/": false, "http://127.0.0.1.example.com": false,
		"ftp://x/": false, "backend/issue": false, "": false, "https://": false, "https://u:p@x/": false, "https://x/#y": false, "http://0x7f.1/": false,
	} {
		if err := CheckURL(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Each way to prove who asks, as the endpoint sees it. Nobody else sees it: not a redirect's target, and no error.
func TestAuthorize(t *testing.T) {
	for name, tc := range map[string]struct {
		f            func(*http.Request) error
		header, want string
	}{
		"bearer": {Bearer("s3cret"), "Authorization", "Bearer s3cret"},
		"header": {Header("X-Internal-Auth", "s3cret"), "X-Internal-Auth", "s3cret"},
		"signed": {Signed(func() (string, error) { return "a.b.c", nil }), "Authorization", "Bearer a.b.c"},
	} {
		s, asked := endpoint(t, says(200, `{"token":"abc"}`))
		if _, err := client(t, Config{URL: s.URL, Authorize: tc.f}).Issue(t.Context(), sale()); err != nil {
			t.Fatal(name, err)
		}
		if got := asked()[0].header.Get(tc.header); got != tc.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	s, asked := endpoint(t, says(200, `{"token":"abc"}`))
	_, err := client(t, Config{URL: s.URL, Retries: 1, Authorize: Signed(func() (string, error) { return "", errors.New("no key") })}).Issue(t.Context(), sale())
	if err == nil || len(asked()) != 0 {
		t.Errorf("asked without a proof: %v", err)
	}
}

// tokenServer gives access tokens a1, a2 and so on, each good for life seconds.
func tokenServer(t *testing.T, life int) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, ok := r.BasicAuth()
		if err := r.ParseForm(); err != nil || !ok || id != "shop" || secret != "s3cret" || r.Form.Get("grant_type") != "client_credentials" ||
			r.Form.Get("scope") != "issue read" || r.Form.Get("audience") != "backend" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client","error_description":"leak"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":"a%d","token_type":"Bearer","expires_in":%d}`, n.Add(1), life)
	}))
	t.Cleanup(s.Close)
	return s, n
}

// One token serves until it ends, or until it is refused, however many ask at once.
func TestOAuth(t *testing.T) {
	server, fetched := tokenServer(t, 60)
	transport := NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	var now atomic.Int64
	c := ClientCredentials{
		TokenURL: server.URL, ID: "shop", Secret: "s3cret", Scopes: []string{"issue", "read"}, Audience: "backend",
		Now: func() time.Time { return time.Now().Add(time.Duration(now.Load())) },
	}
	authorize, refused, err := OAuth(c, transport)
	if err != nil {
		t.Fatal(err)
	}
	var stale atomic.Value
	stale.Store("")
	s, asked := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == stale.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		says(200, `{"token":"abc"}`)(w, r)
	})
	issuer := client(t, Config{URL: s.URL, Authorize: authorize, Refused: refused, Retries: 1})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := issuer.Issue(t.Context(), sale()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != 1 || asked()[0].header.Get("Authorization") != "Bearer a1" {
		t.Errorf("fetched %d, asked with %v", n, asked()[0].header)
	}
	now.Store(int64(51 * time.Second)) // ten seconds before its end it is replaced
	if _, err := issuer.Issue(t.Context(), sale()); err != nil || fetched.Load() != 2 {
		t.Errorf("%v, fetched %d", err, fetched.Load())
	}
	stale.Store("Bearer a2")
	now.Store(0)
	if _, err := issuer.Issue(t.Context(), sale()); err != nil || fetched.Load() != 3 {
		t.Errorf("refused, and %v, fetched %d", err, fetched.Load())
	}

	c.Secret = "wrong-s3cret"
	if authorize, _, err = OAuth(c, transport); err != nil {
		t.Fatal(err)
	}
	_, err = client(t, Config{URL: s.URL, Authorize: authorize}).Issue(t.Context(), sale())
	if err == nil || strings.Contains(err.Error(), "leak") || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "status 401") {
		t.Errorf("a wrong secret: %v", err)
	}
	for _, bad := range []ClientCredentials{{TokenURL: "http://auth.example.com", ID: "a", Secret: "b"}, {TokenURL: server.URL, ID: "a"}, {TokenURL: server.URL, Secret: "b"}} {
		if _, _, err := OAuth(bad, transport); err == nil {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// What an endpoint answers may be anything.
func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"token":"x"}`, `{"token":"x","tokenType":"Bearer"}`, `{"a":1}`, `[]`, `null`, `{`, `{"token":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := read(data)
		if err != nil {
			if c != (Credential{}) {
				t.Fatalf("%+v with %v", c, err)
			}
			return
		}
		if c.Token == "" || !word(c.Type) {
			t.Fatalf("%q gives %+v", data, c)
		}
		if again, err := read(data); err != nil || again != c {
			t.Fatalf("another time %+v %v", again, err)
		}
	})
}
