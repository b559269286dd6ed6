package management

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/negotiation"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// The codes of errors; they never change. Programs branch on them alone.
const (
	CodeMissingToken    = "auth.missing_token"
	CodeCrossOrigin     = "auth.cross_origin"
	CodeKeyInvalid      = "apikey.invalid"
	CodeKeyExpired      = "apikey.expired"
	CodeKeyRevoked      = "apikey.revoked"
	CodeKeyMismatch     = "apikey.network_mismatch"
	CodeKeyScope        = "apikey.scope_insufficient"
	CodeKeyGrant        = "apikey.role_insufficient_for_grants"
	CodeKeyNotFound     = "apikey.not_found"
	CodeKeyRotating     = "apikey.rotation_in_progress"
	CodeNetworkRequired = "network.header_required"
	CodeNetworkInvalid  = "network.invalid"
	CodeNetworkLocked   = "network_locked" // the only one without a namespace: it is a word of the field

	CodeRequest         = "request.invalid"
	CodeNotFound        = "resource.not_found"
	CodeMethod          = "request.method_not_allowed"
	CodeTooLarge        = "request.too_large"
	CodeMediaType       = "request.media_type"
	CodePaymentNotFound = "payment.not_found"
	CodeNotSettleable   = "payment.not_settleable"
	CodeNotRefundable   = "payment.not_refundable"
	CodeNotFailed       = "refund.not_failed"
	CodeNoPlan          = "token.payment_without_plan"
	CodePlanOver        = "token.plan_over"
	CodeConflict        = "resource.conflict"
	CodeMainnetNeeded   = "network.mainnet_required"
	CodeHooksOff        = "webhook.off" // those of package webhooks come besides

	CodeAnchorNotFound = "audit.anchor_not_found"
	CodeAuditUnderWay  = "audit.under_way"

	CodeTokenKeyNotFound   = "token_key.not_found"
	CodeTokenKeyWaiting    = "token_key.rotation_in_progress"
	CodeTokenKeySigns      = "token_key.signs"
	CodeTokenKeyCost       = "token_key.tokens_would_end"
	CodeTokenKeyConfigured = "token_key.configured"
	CodeTokenKeysMissing   = "token_key.none"
	CodeTokenKeysAway      = "token_key.unavailable"

	CodeRateLimit = "rate_limit.exceeded"
	CodeBusy      = "request.too_many_at_once"

	CodeIdempotencyRequired  = "idempotency.key_required"
	CodeIdempotencyInvalid   = "idempotency.key_invalid"
	CodeIdempotencyConflict  = "idempotency.conflict"
	CodeIdempotencyUnderWay  = "idempotency.in_progress"
	CodeIdempotencyNotStored = "idempotency.response_not_stored"

	CodeUnavailable = "internal.unavailable"
	CodeIncomplete  = "ledger.incomplete"
	CodeBroken      = "ledger.audit_broken"
	CodeUnhandled   = "internal.unhandled"
)

// Error is what a caller is told: a status and a code for programs, words for people.
type Error struct {
	Status  int
	Code    string
	Message string
	// Details say where a request is wrong.
	Details []Detail
	// RetryAfter is in how many seconds it may be tried again; 0: nothing is said of that.
	RetryAfter int

	header map[string]string
	cause  error
}

// Detail is one thing that is wrong with a request.
type Detail struct {
	Location string `json:"location,omitempty" doc:"Where it is, such as query.limit or body.scopes"`
	Message  string `json:"message"`
}

// Error gives the words.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// GetStatus makes it a huma.StatusError.
func (e *Error) GetStatus() int { return e.Status }

func told(status int, code, message string, cause error) *Error {
	return &Error{Status: status, Code: code, Message: message, cause: cause}
}

func invalid(location, message string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Code: CodeRequest, Message: "the request is not well formed: " + location + ": " + message,
		Details: []Detail{{location, message}},
	}
}

func unavailable(cause error) *Error {
	e := told(http.StatusServiceUnavailable, CodeUnavailable, "the ledger can't be reached now; try again", cause)
	e.RetryAfter = 1
	return e
}

// asError is the table of what errors mean to a caller.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if m, ok := errors.AsType[*huma.ErrorModel](err); ok {
		return fromHuma(m)
	}
	if e, ok := errors.AsType[*webhooks.Error](err); ok {
		return hookError(e)
	}
	for _, row := range errorTable {
		if errors.Is(err, row.is) {
			message := row.message
			if message == "" {
				message = err.Error()
			}
			return told(row.status, row.code, message, err)
		}
	}
	return unavailable(err)
}

// hookKeyAgain is after how many seconds it is worth to ask again where the key that seals secrets could not be had.
const hookKeyAgain = 10

// hookError is what an error of webhooks means in HTTP.
func hookError(e *webhooks.Error) *Error {
	status := http.StatusConflict
	switch {
	case errors.Is(e, webhooks.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(e, webhooks.ErrInvalid):
		status = http.StatusBadRequest
	case e.Code == webhooks.CodeKeyMissing:
		out := told(http.StatusServiceUnavailable, e.Code, e.Message, e)
		out.RetryAfter = hookKeyAgain
		return out
	}
	return told(status, e.Code, e.Message, e)
}

var errorTable = []struct {
	is      error
	status  int
	code    string
	message string // empty: what the error says
}{
	{apikey.ErrNotFound, http.StatusNotFound, CodeKeyNotFound, "there is no API key with this id"},
	{apikey.ErrRotating, http.StatusConflict, CodeKeyRotating, "this API key was rotated already, and the overlap has not ended; rotate its successor, or revoke it"},
	{apikey.ErrExpired, http.StatusGone, CodeKeyExpired, "this API key has expired"},
	{apikey.ErrRevoked, http.StatusGone, CodeKeyRevoked, "this API key was revoked"},
	{apikey.ErrWider, http.StatusForbidden, CodeKeyGrant, ""},
	{apikey.ErrRequest, http.StatusBadRequest, CodeRequest, ""},
	{ledger.ErrNotFound, http.StatusNotFound, CodePaymentNotFound, "there is no payment with this id; check that it is written as it was given"},
	{ledger.ErrIncomplete, http.StatusConflict, CodeIncomplete, "a copy into this ledger was begun and is not complete"},
	{ledger.ErrAudit, http.StatusConflict, CodeBroken, ""},
	{ledger.ErrConflict, http.StatusConflict, CodeConflict, "it keeps changing; try again"},
}

// maxDetails is of how much that is wrong a caller is told: a body may have a mistake every other byte.
const maxDetails = 20

// fromHuma translates what the framework finds wrong. Values are left out: they may be secrets in the wrong place.
func fromHuma(m *huma.ErrorModel) *Error {
	e := &Error{Status: m.Status, Code: CodeRequest, Message: "the request is not well formed"}
	for _, d := range m.Errors[:min(len(m.Errors), maxDetails)] {
		if d != nil {
			e.Details = append(e.Details, Detail{d.Location, d.Message})
		}
	}
	switch {
	case m.Status == http.StatusRequestEntityTooLarge:
		e.Code, e.Message = CodeTooLarge, "the body is too large"
	case m.Status == http.StatusUnsupportedMediaType:
		e.Code, e.Message = CodeMediaType, "the body must be application/json"
	case m.Status >= http.StatusInternalServerError:
		e.Code, e.Message, e.Details = CodeUnhandled, "something went wrong here; it was logged under the request's id", nil
	default: // 422 is for what is well formed and can't be done
		e.Status = http.StatusBadRequest
		if len(e.Details) > 0 {
			e.Message += ": " + strings.TrimPrefix(e.Details[0].Location+": ", ": ") + e.Details[0].Message
		} else if m.Detail != "" {
			e.Message += ": " + m.Detail
		}
	}
	return e
}

// Envelope is an error on the wire.
type Envelope struct {
	Error EnvelopeError `json:"error"`
}

// EnvelopeError is what is in an Envelope.
type EnvelopeError struct {
	Code      string   `json:"code" doc:"Stable; branch on this alone" example:"apikey.network_mismatch"`
	Message   string   `json:"message" doc:"English, safe to log"`
	RequestID string   `json:"requestId" doc:"The same as in the header X-Request-Id"`
	Details   []Detail `json:"details,omitempty"`
}

// Problem is an error on the wire for who accepts application/problem+json (RFC 9457).
type Problem struct {
	Type      string   `json:"type"`
	Title     string   `json:"title"`
	Status    int      `json:"status"`
	Detail    string   `json:"detail"`
	Code      string   `json:"code"`
	RequestID string   `json:"requestId"`
	Retryable bool     `json:"retryable"`
	Errors    []Detail `json:"errors,omitempty"`
}

const (
	jsonType    = "application/json"
	problemType = "application/problem+json"
)

// encode gives e as the caller wants it.
func (e *Error) encode(r *http.Request, id string) (contentType string, body []byte) {
	var v any = Envelope{EnvelopeError{e.Code, e.Message, id, e.Details}}
	contentType = jsonType
	if wantsProblem(r) {
		contentType = problemType
		v = Problem{
			Type: "about:blank", Title: http.StatusText(e.Status), Status: e.Status, Detail: e.Message, Code: e.Code, RequestID: id,
			Retryable: e.Status == http.StatusServiceUnavailable || e.RetryAfter > 0, Errors: e.Details,
		}
	}
	body, err := json.Marshal(v)
	if err != nil { // nothing in it can fail
		return contentType, nil
	}
	return contentType, append(body, '\n')
}

// wantsProblem reports whether the caller prefers problem details. They must be asked for by name. SelectQValueFast panics at some headers.
func wantsProblem(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, problemType) &&
		negotiation.SelectQValue(accept, []string{problemType, jsonType}) == problemType
}

// fail answers an error.
func (a *API) fail(w http.ResponseWriter, r *http.Request, id string, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // nobody listens
	}
	e := asError(err)
	if e.Status >= http.StatusInternalServerError {
		a.log.ErrorContext(r.Context(), "an operation failed", slog.String("path", concealed(r.URL.Path)), slog.String("code", e.Code),
			slog.String("request", id), slog.Any("error", err))
	}
	h := w.Header()
	for name, value := range e.header {
		h.Set(name, value)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	contentType, body := e.encode(r, id)
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
