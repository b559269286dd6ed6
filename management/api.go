package management

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/dashboard"
)

// Config makes an API.
type Config struct {
	// Open gives the Shop for one request; what it gives besides is called when the request is done.
	Open func(ctx context.Context) (*Shop, func(), error)
	// Prefix is what paths begin with before /v1, such as /x402; may be empty.
	Prefix string
	// Local: whoever reaches this API sits at the machine. No key is asked for, everything is allowed, and X-Network may be left out.
	Local bool
	// KeyMaxAge is how old keys may become before their users are told; 0: never.
	KeyMaxAge time.Duration
	// IdempotencyTTL is how long answers to Idempotency-Keys are kept. Default: 24 h.
	IdempotencyTTL time.Duration
	// Usage counts the calls of keys; who gives it flushes it. Default: one of the API's own, which nobody writes down.
	Usage *apikey.Usage
	// Observe hears of what is counted: an event and the mode of the key it is about. May be nil.
	Observe func(event, mode string)
	// Limits bound how often the API may be called; the zero value bounds nothing. Local callers have none.
	Limits Limits
	// Limited hears of each call that a limit refuses, and of which one: key, client or refused. May be nil.
	Limited func(limit string)
	// Client gives the address that a request came from. Default: the connection's.
	Client func(*http.Request) string
	// Random is crypto/rand's Reader outside of tests, which is the default.
	Random io.Reader
	Logger *slog.Logger
}

// API is the management API, an http.Handler.
type API struct {
	open      func(ctx context.Context) (*Shop, func(), error)
	prefix    string
	local     bool
	keyMaxAge time.Duration
	replayFor time.Duration
	observe   func(event, mode string)
	usage     *apikey.Usage
	limits    Limits
	limited   func(limit string)
	client    func(*http.Request) string
	random    io.Reader
	log       *slog.Logger
	auditing  sync.Mutex // held while all of a ledger is read for somebody

	mux      *http.ServeMux
	huma     huma.API
	spec     []byte
	specYAML []byte
	page     []byte
	cross    *http.CrossOriginProtection

	listeners seats // of those who listen to events
	exports   seats // of those who export payments
	probes    seats // of those who have endpoints of webhooks asked
	leaving   context.Context
	leave     context.CancelFunc
}

const defaultIdempotencyTTL = 24 * time.Hour

// New makes an API. It asks nobody anything.
func New(c Config) (*API, error) {
	a := &API{
		open: c.Open, prefix: c.Prefix, local: c.Local, keyMaxAge: c.KeyMaxAge, replayFor: c.IdempotencyTTL, observe: c.Observe,
		usage: c.Usage, limits: c.Limits, limited: c.Limited, client: c.Client,
		random: c.Random, log: c.Logger, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(),
		listeners: seats{most: maxListeners, mostOfKey: maxListenersOfKey},
		exports:   seats{most: maxAtOnce, mostOfKey: maxAtOnceOfKey},
		probes:    seats{most: maxAtOnce, mostOfKey: maxAtOnceOfKey},
	}
	a.leaving, a.leave = context.WithCancel(context.Background())
	if a.replayFor == 0 {
		a.replayFor = defaultIdempotencyTTL
	}
	if a.observe == nil {
		a.observe = func(string, string) {}
	}
	if a.limited == nil {
		a.limited = func(string) {}
	}
	if a.client == nil {
		a.client = remoteHost
	}
	if a.usage == nil {
		a.usage = new(apikey.Usage)
	}
	if a.random == nil {
		a.random = rand.Reader
	}
	a.huma = humago.NewWithPrefix(a.mux, c.Prefix, a.humaConfig())
	a.huma.UseMiddleware(a.serve)
	a.addPayments()
	a.addRevenue()
	a.addFeed()
	a.addRefunds()
	a.addTokens()
	a.addBooks()
	a.addTrail()
	a.addKeys()
	a.addUsage()
	a.addTokenKeys()
	a.addHooks()
	if err := a.document(); err != nil {
		return nil, err
	}
	if !a.local { // it signs in with a key
		dashboard.Add(a.mux, a.prefix)
	}
	return a, nil
}

// Paths reports whether a path is one that the API answers.
func (a *API) Paths(path string) bool {
	rest, ok := strings.CutPrefix(path, a.prefix)
	if ok && !a.local && dashboard.Has(rest) {
		return true
	}
	return ok && (rest == pathDocs || rest == pathSpec || rest == pathSpecYAML || rest == "/v1" || strings.HasPrefix(rest, "/v1/"))
}

// Where the documents are.
const (
	pathDocs     = "/docs"
	pathSpec     = "/openapi.json"
	pathSpecYAML = "/openapi.yaml"
)

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	id := newRequestID()
	h.Set("X-Request-Id", id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	handler, pattern := a.mux.Handler(r)
	if pattern == "" {
		a.failRouting(w, r, id, handler)
		return
	}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
}

type requestIDKey struct{}

func newRequestID() string { return "req_" + strings.ToLower(rand.Text()) }

// failRouting answers what no operation is for.
func (a *API) failRouting(w http.ResponseWriter, r *http.Request, id string, handler http.Handler) {
	var said recorder
	handler.ServeHTTP(&said, r)
	if said.status != http.StatusMethodNotAllowed {
		a.fail(w, r, id, told(http.StatusNotFound, CodeNotFound, "there is nothing at this path; see "+a.prefix+pathDocs, nil))
		return
	}
	e := told(http.StatusMethodNotAllowed, CodeMethod, "this path is for "+said.Header().Get("Allow"), nil)
	e.header = map[string]string{"Allow": said.Header().Get("Allow")}
	a.fail(w, r, id, e)
}

// serve is what every operation goes through: huma calls it before it reads anything.
func (a *API) serve(hctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(hctx)
	op := hctx.Operation()
	ru, ok := op.Metadata[ruleKey].(*rule)
	id, _ := r.Context().Value(requestIDKey{}).(string)
	if !ok {
		a.fail(w, r, id, told(http.StatusInternalServerError, CodeUnhandled, "the operation has no rule", nil))
		return
	}
	x := &exchange{w: w, r: r, id: id, rule: ru}
	if err := a.run(x, func() {
		r := x.r.Clone(context.WithValue(x.r.Context(), exchangeKey{}, x))
		r.Header.Del("Accept") // there is one format, and the framework panics at some of what may stand there, when all is done
		next(humago.NewContext(op, r, &x.answer))
	}); err != nil {
		if !x.began {
			a.fail(w, r, id, err)
		}
		return
	}
	if !x.began {
		x.answer.send(w, r)
	}
}

// run has an operation done. An error is what the caller is to be told instead of the answer.
func (a *API) run(x *exchange, operate func()) (failed error) {
	ctx := x.r.Context()
	if err := a.cross.Check(x.r); err != nil { // a page of another site, in a browser that reaches this address
		return told(http.StatusForbidden, CodeCrossOrigin, "requests of other sites' pages are not taken", err)
	}
	if !a.local {
		if _, err := bearer(x.r); err != nil {
			return err
		}
	}
	shop, release, err := a.open(ctx)
	if err != nil {
		return unopened(err)
	}
	defer release()
	x.shop = shop
	defer func() { a.count(x, failed) }() // before the shop is let go
	if err := a.admit(ctx, x); err != nil {
		return err
	}
	if err := checkQuery(x.r.URL.RawQuery); err != nil {
		return err
	}
	done := func() error {
		operate()
		return x.failure
	}
	if x.rule.changes() {
		if err := x.readBody(); err != nil {
			return err
		}
		return a.once(ctx, x, func() error { return a.audited(ctx, x, done) })
	}
	return done()
}

// unopened is what is told when there is no shop. Errors of this package are told as they are.
func unopened(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return unavailable(err)
}

func (a *API) keys(s *Shop) *apikey.Keys {
	return &apikey.Keys{Store: s.Store, Random: a.random, Log: a.log}
}

// jsonFormat is that of the framework without a newline in what it escapes: answers are read by programs, not put into pages.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	},
	Unmarshal: json.Unmarshal,
}

func (a *API) humaConfig() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "x402 management API", Version: "1", Description: apiDescription},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					securityScheme: {Type: "http", Scheme: "bearer", Description: "An API key: sk_test_… or sk_live_…"},
				},
			},
		},
		Formats:                      map[string]huma.Format{jsonType: jsonFormat, "json": jsonFormat},
		DefaultFormat:                jsonType,
		RejectUnknownQueryParameters: true, // one that is misspelled would select too much
		Transformers:                 []huma.Transformer{keepFailure},
	}
}

// keepFailure takes errors out of the framework's hands, so that all are told in one form.
func keepFailure(ctx huma.Context, _ string, v any) (any, error) {
	err, failed := v.(error)
	if !failed {
		return v, nil
	}
	if x := exchangeOf(ctx.Context()); x != nil {
		x.failure = err
	}
	return nil, nil
}

// document makes what is served of the API's description.
func (a *API) document() error {
	for name := range a.huma.OpenAPI().Components.Schemas.Map() {
		if name == "ErrorModel" || name == "ErrorDetail" { // the framework's, which nobody sees
			delete(a.huma.OpenAPI().Components.Schemas.Map(), name)
		}
	}
	var err error
	if a.spec, err = json.Marshal(a.huma.OpenAPI()); err != nil {
		return fmt.Errorf("management: describing the API: %w", err)
	}
	if a.specYAML, err = a.huma.OpenAPI().YAML(); err != nil {
		return fmt.Errorf("management: describing the API: %w", err)
	}
	if a.page, err = renderPage(a.huma.OpenAPI(), a.prefix); err != nil {
		return fmt.Errorf("management: describing the API: %w", err)
	}
	for path, d := range map[string]struct {
		mime string
		body []byte
	}{
		pathSpec: {"application/openapi+json", a.spec}, pathSpecYAML: {"application/openapi+yaml", a.specYAML},
		pathDocs: {"text/html; charset=utf-8", a.page},
	} {
		a.mux.HandleFunc("GET "+a.prefix+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", d.mime)
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+pageStyleHash+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			if r.Method != http.MethodHead {
				_, _ = w.Write(d.body)
			}
		})
	}
	return nil
}

// Spec is the OpenAPI document, in JSON.
func (a *API) Spec() []byte { return a.spec }
