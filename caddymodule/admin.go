package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(AdminAPI))
}

// Paths on Caddy's admin endpoint.
const (
	adminBase     = "/x402/"
	adminPayments = "/x402/payments"
	adminStates   = "/x402/payments/states"
	adminAudit    = "/x402/audit"
	adminVerify   = "/x402/audit/verify"
)

// AdminAPI shows the ledger of the running configuration on Caddy's admin endpoint, and its keys; beside the management API, only what is a `POST`
// changes anything.
//
//   - `GET /x402/`: the kind of store that the ledger is in
//   - `GET /x402/payments`: payments, newest first, as JSON; `state` and `payer` select, `limit` is from 1 to 100, and the
//     `next` of a page is the `cursor` of the one after
//   - `GET /x402/payments/states`: how many payments are in each state
//   - `GET /x402/payments/{id}`: a payment with its audit trail and its transactions
//   - `GET /x402/audit`: the audit trail of all payments with its anchors, as JSON lines
//   - `GET /x402/audit/verify`: whether all of that holds together; `expect` is the hash of an anchor that was kept elsewhere
//   - `GET /x402/keys`: the keys of tokens, with when they begin to sign and end to verify; never what they are made of
//   - `POST /x402/keys/rotate`: adds a key, which signs after `lead`; `overlap`, `algorithm` and `force` as in the command
//   - `POST /x402/keys/retire`: ends the `key` before its time, with `force` though tokens that were sold stop working
//   - `POST /x402/tokens/revoke`: takes back the token of the plan that the `payment` bought
//   - `GET /x402/refunds/plan`: what would be paid back now, of the newest `limit` that are pending
//   - `POST /x402/refunds/{id}/retry`: lets a refund that has failed be tried again
//   - `/x402/v1/…`, `/x402/docs`, `/x402/openapi.json`, `/x402/openapi.yaml`: the management API, as x402_management serves it, without keys
//
// What is posted must be `application/json`; where there is nothing to say, it is `{}`. Errors are problem details (RFC 9457) with a stable `code`.
type AdminAPI struct {
	log *zap.Logger
}

// CaddyModule implements caddy.Module.
func (*AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.x402", New: func() caddy.Module { return new(AdminAPI) }}
}

// Provision implements caddy.Provisioner. It keeps nothing of the configuration: the admin endpoint is there before the
// apps are, and stays if they fail.
func (a *AdminAPI) Provision(caddy.Context) error {
	a.log = caddy.Log().Named("admin.api.x402")
	return nil
}

// Routes implements caddy.AdminRouter.
func (a *AdminAPI) Routes() []caddy.AdminRoute {
	return append(a.managementRoutes(), []caddy.AdminRoute{
		{Pattern: adminPayments, Handler: a.ledger(servePayments)},
		{Pattern: adminPayments + "/{id}", Handler: a.ledger(servePaymentFile)},
		{Pattern: adminStates, Handler: a.ledger(serveStates)},
		{Pattern: adminAudit, Handler: a.ledger(serveExport)},
		{Pattern: adminVerify, Handler: a.ledger(serveVerify)},
		{Pattern: adminRefundPlan, Handler: a.ledger(serveRefundPlan)},
		{Pattern: adminRefundRetry, Handler: a.ledger(serveRefundRetry, http.MethodPost)},
		{Pattern: adminRevoke, Handler: a.ledger(serveRevocation, http.MethodPost)},
		{Pattern: adminKeys, Handler: a.keys(serveKeys)},
		{Pattern: adminRotate, Handler: a.keys(serveRotation, http.MethodPost)},
		{Pattern: adminRetire, Handler: a.keys(serveRetirement, http.MethodPost)},
		{Pattern: adminBase + "{$}", Handler: a.ledger(serveLedgerInfo)},
		{Pattern: adminBase, Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			a.fail(w, r, &operatorError{http.StatusNotFound, codeNoSuchPath, "there is nothing at " + r.URL.Path, nil})
			return nil
		})},
	}...)
}

// only makes a handler of one for some methods, and answers its errors. No methods: those that read.
func (a *AdminAPI) only(methods []string, serve func(http.ResponseWriter, *http.Request) error) caddy.AdminHandler {
	why := " is for " + strings.Join(methods, ", ")
	if len(methods) == 0 {
		methods, why = []string{http.MethodGet, http.MethodHead}, " can only be read"
	}
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			a.fail(w, r, &operatorError{http.StatusMethodNotAllowed, codeMethod, r.URL.Path + why, nil})
			return nil
		}
		if err := serve(w, r); err != nil {
			a.fail(w, r, err)
		}
		return nil
	})
}

// ledger makes a handler of one that looks into the ledger of the live configuration. That is held open for the request;
// the configuration may go meanwhile.
func (a *AdminAPI) ledger(serve func(http.ResponseWriter, *http.Request, *desk) error, methods ...string) caddy.AdminHandler {
	return a.only(methods, func(w http.ResponseWriter, r *http.Request) error {
		d, release, err := liveDesk()
		if err != nil {
			return err
		}
		defer release()
		// Whoever stops reading must not keep the ledger open.
		g := &guarded{ResponseWriter: w, control: http.NewResponseController(w)}
		if err := serve(g, r, d); err != nil {
			a.failAfter(g, r, err)
		}
		return nil
	})
}

// liveApp is that of the configuration that is running now.
func liveApp() (*App, error) {
	found, err := caddy.ActiveContext().AppIfConfigured("x402")
	app, ok := found.(*App)
	if err != nil || !ok {
		return nil, &operatorError{
			http.StatusNotFound, codeNotConfigured, "the running configuration has no x402 app; add the global option x402", err,
		}
	}
	return app, nil
}

// liveDesk looks into the ledger of the configuration that is running now.
func liveDesk() (*desk, func(), error) {
	app, err := liveApp()
	if err != nil {
		return nil, nil, err
	}
	e, release, err := app.acquire()
	if err != nil {
		return nil, nil, unavailable(err)
	}
	kind := moduleName(app.store)
	return &desk{store: e.Store(), engine: e, networks: networksOf(app.payees), kind: kind, forgets: forgetsAfter(kind, app.Retention)}, release, nil
}

// ledgerInfo says what ledger there is.
type ledgerInfo struct {
	Store string `json:"store"` // the name of the store's module
}

func serveLedgerInfo(w http.ResponseWriter, r *http.Request, d *desk) error {
	return writeJSON(w, r, http.StatusOK, ledgerInfo{Store: d.kind})
}

func servePayments(w http.ResponseWriter, r *http.Request, d *desk) error {
	q, err := parsePaymentQuery(r.URL.Query())
	if err != nil {
		return err
	}
	page, err := d.list(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, page)
}

func servePaymentFile(w http.ResponseWriter, r *http.Request, d *desk) error {
	file, err := d.show(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, file)
}

func serveStates(w http.ResponseWriter, r *http.Request, d *desk) error {
	counts, err := d.states(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, counts)
}

// guarded gives each write its own deadline, and knows whether the answer has begun.
type guarded struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// stallTimeout is how long a client may take to read what one write sends.
const stallTimeout = 30 * time.Second

// WriteHeader implements http.ResponseWriter.
func (g *guarded) WriteHeader(status int) {
	g.begun = true
	g.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (g *guarded) Write(b []byte) (int, error) {
	g.begun = true
	if err := g.control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("setting a deadline: %w", err)
	}
	return g.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (g *guarded) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// failAfter answers an error, or cuts an answer off that has begun: it must not look whole.
func (a *AdminAPI) failAfter(g *guarded, r *http.Request, err error) {
	if !g.begun {
		a.fail(g, r, err)
		return
	}
	a.log.Error("an answer was cut off", zap.String("path", r.URL.Path), zap.Error(err))
	_ = g.control.Flush()
	_ = g.control.SetWriteDeadline(time.Unix(1, 0))
}

// fail answers an error.
func (a *AdminAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // nobody listens
	}
	e := asOperatorError(err)
	if e.Status >= http.StatusInternalServerError {
		a.log.Error("answering", zap.String("path", r.URL.Path), zap.String("code", e.Code), zap.Error(err))
	}
	body, err := json.Marshal(operatorProblem{
		Type: "about:blank", Title: http.StatusText(e.Status), Status: e.Status, Detail: e.Detail, Code: e.Code,
		Retryable: e.Status == http.StatusServiceUnavailable,
	})
	if err != nil { // nothing in it can fail
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if err := write(w, r, e.Status, "application/problem+json", body); err != nil {
		a.log.Debug("an error was not heard", zap.Error(err))
	}
}

// Interface guards.
var (
	_ caddy.AdminRouter = (*AdminAPI)(nil)
	_ caddy.Provisioner = (*AdminAPI)(nil)
)
