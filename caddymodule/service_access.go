package caddymodule

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Bounds of a request to pathAccess.
const (
	mostAccess    = 1 << 20
	accessPatient = 30 * time.Second
)

// accessBody is what is posted to pathAccess, as Key0's clients do.
type accessBody struct {
	PlanID     string          `json:"planId"`
	RouteID    string          `json:"routeId"`
	RequestID  string          `json:"requestId"`
	ResourceID string          `json:"resourceId"`
	Resource   *accessResource `json:"resource"`
	// ClientAgentID and CallbackURL are understood, and heeded by nobody.
	ClientAgentID string `json:"clientAgentId"`
	CallbackURL   string `json:"callbackUrl"`
}

type accessResource struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body"`
}

// accessError is a refusal of what was posted. Some of Key0's have their text in error, and some in message: they have it in both here.
type accessError struct {
	status  int
	Type    string `json:"type,omitempty"`
	Code    string `json:"code,omitempty"`
	Text    string `json:"error,omitempty"`
	Message string `json:"message,omitempty"`
}

func (r *accessError) Error() string { return r.Code + ": " + r.Text + r.Message }

func refuseAccess(status int, code, text string) *accessError {
	return &accessError{status: status, Type: "Error", Code: code, Text: text, Message: text}
}

const (
	choosePlan  = "Please select a plan from the discovery API response to purchase access. Endpoint: GET /discover"
	oneOfTwo    = "Provide either planId or routeId, not both"
	noResource  = "Routes in standalone mode require a 'resource' field (method + path)."
	noPath      = "resource.method and resource.path are required"
	noA2A       = "A2A's JSON-RPC is not served here; post the same request without the header X-A2A-Extensions"
	notReadable = "The body must be a JSON object with planId or routeId"
)

// serveAccess answers `POST /x402/access`.
func (s *Service) serveAccess(w http.ResponseWriter, r *http.Request) error {
	newTold(r)
	err := s.access(w, r)
	refused, ok := errors.AsType[*accessError](err)
	if !ok {
		return err
	}
	return writeJSON(w, r, refused.status, refused)
}

func (s *Service) access(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("X-A2a-Extensions") != "" {
		return refuseAccess(http.StatusNotImplemented, "A2A_NOT_SUPPORTED", noA2A)
	}
	if unasked(r) {
		return refuseAccess(http.StatusUnsupportedMediaType, paywall.CodeInvalidRequest, "the Content-Type must be application/json")
	}
	taken := bodySize(r)
	defer func() { s.bodies.Add(-taken) }()
	if s.bodies.Add(taken) > mostBodies && taken > smallAccess {
		w.Header().Set("Retry-After", "1")
		return refuseAccess(http.StatusServiceUnavailable, paywall.CodeInternalError, "too many long requests are being read; send the same request again")
	}
	body, err := readAccess(w, r)
	if err != nil {
		return err
	}
	s.bodies.Add(r.ContentLength - taken)
	taken = r.ContentLength
	// Key0 takes base64url as well, and its clients send it.
	if v := r.Header.Get(x402.HeaderSignature); strings.ContainsAny(v, "-_") {
		r.Header.Set(x402.HeaderSignature, strings.NewReplacer("-", "+", "_", "/").Replace(v))
	}
	switch {
	case body.PlanID != "" && body.RouteID != "":
		return &accessError{status: http.StatusBadRequest, Text: oneOfTwo}
	case body.RequestID != "" && !paywall.ValidRequestID(body.RequestID), body.ResourceID != "" && !paywall.ValidRequestID(body.ResourceID):
		return refuseAccess(http.StatusBadRequest, paywall.CodeInvalidRequest, "requestId and resourceId may have up to 200 printable characters")
	case body.RouteID != "":
		return s.accessRoute(w, r, body)
	case body.PlanID == "":
		return &accessError{status: http.StatusBadRequest, Text: choosePlan}
	}
	return s.accessPlan(w, r, body)
}

// unasked reports whether a browser may have sent r for a page of another site, with all that it knows of this one, such as cookies: it asks
// nobody before it posts a form or a text. What is called by its id comes to the upstream by another method, as JSON, and without an Origin, so
// that the upstream can't tell.
func unasked(r *http.Request) bool {
	if r.Header.Get("Origin") == "" && r.Header.Get("Cookie") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return false // no browser
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err != nil || kind != "application/json"
}

// Bodies that are longer than smallAccess, or may be, take no more of memory than mostBodies, all together.
const (
	smallAccess = 16 << 10
	mostBodies  = 64 << 20
)

// bodySize is how much of memory the body of r may take.
func bodySize(r *http.Request) int64 {
	if r.ContentLength < 0 || r.ContentLength > mostAccess {
		return mostAccess
	}
	return r.ContentLength
}

// readAccess reads what was posted, and leaves it to be read again.
func readAccess(w http.ResponseWriter, r *http.Request) (*accessBody, error) {
	c := http.NewResponseController(w)
	timed := c.SetReadDeadline(time.Now().Add(accessPatient)) == nil
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostAccess))
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, refuseAccess(http.StatusRequestEntityTooLarge, paywall.CodeInvalidRequest, "the body may have 1 MiB")
	}
	if err != nil {
		return nil, refuseAccess(http.StatusBadRequest, paywall.CodeInvalidRequest, "the body did not come as a whole")
	}
	if timed {
		_ = c.SetReadDeadline(time.Time{})
	}
	body := new(accessBody)
	if text := bytes.TrimSpace(raw); len(text) > 0 && (text[0] != '{' || json.Unmarshal(text, body) != nil) {
		return nil, refuseAccess(http.StatusBadRequest, paywall.CodeInvalidRequest, notReadable)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	return body, nil
}

// accessPlan sells a plan: what is bought is the same as at the plan's routes.
func (s *Service) accessPlan(w http.ResponseWriter, r *http.Request, body *accessBody) error {
	p, ok := s.plan(body.PlanID)
	if !ok {
		return &accessError{status: http.StatusNotFound, Type: "Error", Code: "TIER_NOT_FOUND", Text: `Plan "` + body.PlanID + `" not found`}
	}
	q := p.handler.request(r, p.pass)
	base := s.app.siteURL(r)
	q.URI, q.URL = pathAccess, base+pathAccess
	resource := body.ResourceID
	if resource == "" {
		resource = "default"
	}
	about := "Access to " + resource
	q.Access = &paywall.Access{
		RequestID: body.RequestID, Item: p.id, Plan: true, ResourceID: resource, TTL: time.Duration(s.ChallengeTTL), Base: base,
		Endpoint: s.endpoint(base, resource), Description: about, Key0: key0Plan(about + " via " + p.id + " tier"),
	}
	return p.handler.gate.Serve(w, r, q, nil)
}

// endpoint is where a grant says that its token opens something.
func (s *Service) endpoint(base, resource string) string {
	if s.ResourceEndpoint == "" {
		return base + "/"
	}
	return strings.Replace(s.ResourceEndpoint, "{resourceId}", url.PathEscape(resource), 1)
}

// key0Plan is what Key0 says in an offer of how to ask for a plan and what comes back.
func key0Plan(about string) map[string]any {
	text := map[string]string{"type": "string"}
	object := func(required []string, names ...string) map[string]any {
		properties := map[string]any{}
		for _, n := range names {
			properties[n] = text
		}
		m := map[string]any{"type": "object", "properties": properties}
		if required != nil {
			m["required"] = required
		}
		return m
	}
	return map[string]any{
		"description":  about,
		"inputSchema":  object([]string{"planId"}, "planId", "requestId", "resourceId"),
		"outputSchema": object(nil, "accessToken", "tokenType", "expiresAt", "resourceEndpoint", "txHash", "explorerUrl"),
	}
}

// resourceResponse is the answer to a route that was called by its id.
type resourceResponse struct {
	Type        string         `json:"type"` // "ResourceResponse"
	ChallengeID string         `json:"challengeId,omitempty"`
	RequestID   string         `json:"requestId,omitempty"`
	RouteID     string         `json:"routeId"`
	TxHash      string         `json:"txHash"`
	ExplorerURL string         `json:"explorerUrl"`
	PaymentID   string         `json:"paymentId,omitempty"`
	Resource    resourceAnswer `json:"resource"`
}

type resourceAnswer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    any               `json:"body"`
	// Encoding is base64 where the body is no text.
	Encoding string `json:"encoding,omitempty"`
}

// accessRoute calls a route by its id.
func (s *Service) accessRoute(w http.ResponseWriter, r *http.Request, body *accessBody) error {
	e, ok := s.route(body.RouteID)
	if !ok {
		return &accessError{status: http.StatusNotFound, Type: "Error", Code: "ROUTE_NOT_FOUND", Text: `Route "` + body.RouteID + `" not found`}
	}
	to, err := e.read(body.Resource)
	if err != nil {
		return err
	}
	payload, mime := body.Resource.payload(e.Method)
	if s.held.Load() > heldEnough {
		w.Header().Set("Retry-After", "1")
		return refuseAccess(http.StatusServiceUnavailable, paywall.CodeInternalError, "too many answers are on their way; send the same request again")
	}
	out := new(paywall.AccessOutcome)
	c := &called{entry: e, held: &s.held, access: &paywall.Access{
		RequestID: body.RequestID, Item: e.ID, ResourceID: body.ResourceID, TTL: time.Duration(s.ChallengeTTL), Base: s.app.siteURL(r),
		Terms: []string{to.RequestURI(), string(payload)}, Description: e.about(), Outcome: out,
	}}
	if body.RequestID != "" && r.Header.Get(headerIdempotencyKey) == "" {
		// Of one name is one request: whoever paid gets the answer again.
		sum := sha256.Sum256([]byte(body.RequestID))
		r.Header.Set(headerIdempotencyKey, "requestId-"+hex.EncodeToString(sum[:]))
	}
	a, err := c.call(r, to, payload, mime)
	defer a.letGo()
	switch {
	case c.wrong || err == nil && !c.taken && c.entry.price != nil && a.status < http.StatusMultipleChoices:
		s.log.Error("a route of the catalogue does not come to the price that it stands under; check the handler's matchers",
			zap.String("route", e.ID), zap.String("path", to.Path))
		return refuseAccess(http.StatusConflict, "ROUTE_MISMATCH", "this path does not cost what the catalogue says; call it at its own address")
	case err != nil:
		return caddyhttp.Error(http.StatusBadGateway, err)
	case !c.served():
		return c.passOn(w, a)
	}
	return s.writeResource(w, r, c, a)
}

const headerIdempotencyKey = "Idempotency-Key"

// read checks that what is called is what the id stands for.
func (e *entry) read(to *accessResource) (*url.URL, error) {
	switch {
	case to == nil:
		return nil, refuseAccess(http.StatusBadRequest, "RESOURCE_REQUIRED", noResource)
	case to.Method == "" || to.Path == "":
		return nil, refuseAccess(http.StatusBadRequest, "MISSING_RESOURCE_FIELD", noPath)
	case !strings.EqualFold(to.Method, e.Method):
		return nil, refuseAccess(http.StatusBadRequest, "ROUTE_MISMATCH", "the method of route "+e.ID+" is "+e.Method)
	}
	u, err := e.target(to.Path)
	if err != nil {
		return nil, refuseAccess(http.StatusBadRequest, "ROUTE_MISMATCH", err.Error())
	}
	return u, nil
}

// payload is the body that the upstream gets: a string as it is, everything else as JSON.
func (a *accessResource) payload(method string) (body []byte, mime string) {
	if method == http.MethodGet || len(a.Body) == 0 || string(a.Body) == "null" {
		return nil, ""
	}
	var text string
	if json.Unmarshal(a.Body, &text) == nil {
		return []byte(text), "text/plain; charset=utf-8"
	}
	return a.Body, "application/json"
}

func (e *entry) about() string {
	if e.Description != "" {
		return e.Description
	}
	return e.Method + " " + e.Path
}

// passOn hands on what is not the upstream's: the offer, a refusal, an answer of who stands before the paywall.
func (c *called) passOn(w http.ResponseWriter, a *heldAnswer) error {
	copyAnswerHeader(w.Header(), a.header)
	return a.send(w)
}

func copyAnswerHeader(to, from http.Header) {
	for name, values := range from {
		if !strings.HasPrefix(name, "Access-Control-") && name != "Server" && name != "Alt-Svc" && name != "Vary" {
			to[name] = values
		}
	}
}

// writeResource wraps the upstream's answer. Its status is within: the call itself has succeeded.
func (s *Service) writeResource(w http.ResponseWriter, r *http.Request, c *called, a *heldAnswer) error {
	receipt := new(x402.SettlementResponse)
	if v := a.header.Get(x402.HeaderResponse); v != "" {
		_ = x402.DecodeHeader(v, 1<<16, receipt)
	}
	for _, name := range [...]string{x402.HeaderResponse, "X-Payment-Id", "X-Payment-Status", "X-Access-Token", "Idempotency-Replayed"} {
		if v := a.header.Get(name); v != "" {
			w.Header().Set(name, v)
			a.header.Del(name)
		}
	}
	out := c.access.Outcome
	if c.err != nil {
		code := "PROXY_ERROR"
		if errorStatus(c.err) == http.StatusGatewayTimeout {
			code = "PROXY_TIMEOUT"
		}
		return writeJSON(w, r, http.StatusBadGateway, map[string]string{
			"type": "Error", "code": code, "challengeId": out.ChallengeID, "txHash": receipt.Transaction,
			"message": "the route could not be reached, or did not answer; what was paid for it is held for refund",
		})
	}
	body, encoding := answerBody(a.header.Get("Content-Type"), a.body.Bytes())
	headers := map[string]string{}
	for name, values := range a.header {
		if name != "Server" && name != "Alt-Svc" && !strings.HasPrefix(name, "Access-Control-") {
			headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	return writeJSON(w, r, http.StatusOK, resourceResponse{
		Type: "ResourceResponse", ChallengeID: out.ChallengeID, RequestID: out.RequestID, RouteID: c.entry.ID,
		TxHash: receipt.Transaction, ExplorerURL: paywall.ExplorerURL(receipt.Network, receipt.Transaction), PaymentID: w.Header().Get("X-Payment-Id"),
		Resource: resourceAnswer{Status: a.status, Headers: headers, Body: body, Encoding: encoding},
	})
}
