package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
)

// The codes of what can go wrong when an operator asks; they never change.
const (
	codeNoPayment     = "payment_not_found"
	codeNoAnchor      = "anchor_not_found"
	codeNoSuchPath    = "not_found"
	codeMethod        = "method_not_allowed"
	codeInvalid       = "invalid_request"
	codeNotConfigured = "x402_not_configured"
	codeUnavailable   = "ledger_unavailable"
	codeIncomplete    = "ledger_incomplete"
	codeNoLedger      = "ledger_not_found"
	codeInUse         = "ledger_in_use"
	codeBroken        = "audit_broken"
)

// operatorError is what an operator is told: a code for programs, words for people.
type operatorError struct {
	Status int
	Code   string
	Detail string
	cause  error
}

// Error gives the words.
func (e *operatorError) Error() string { return e.Detail }

// Unwrap gives the cause.
func (e *operatorError) Unwrap() error { return e.cause }

func invalidRequest(format string, args ...any) error {
	return &operatorError{http.StatusBadRequest, codeInvalid, fmt.Sprintf(format, args...), nil}
}

func unavailable(cause error) error {
	return &operatorError{http.StatusServiceUnavailable, codeUnavailable, "the ledger can't be read now: " + cause.Error(), cause}
}

// operatorProblem is an error on the wire (RFC 9457).
type operatorProblem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Retryable bool   `json:"retryable"`
}

// olderCodes are those that the commands' own endpoints have for codes of the management API.
var olderCodes = map[string]string{
	management.CodeRequest:         codeInvalid,
	management.CodePaymentNotFound: codeNoPayment,
	management.CodeNotFailed:       codeNotFailed,
	management.CodeNoPlan:          codeNoPlan,
	management.CodePlanOver:        codePlanOver,
	management.CodeIncomplete:      codeIncomplete,
	management.CodeBroken:          codeBroken,
	management.CodeUnavailable:     codeUnavailable,

	management.CodeTokenKeyNotFound:   codeNoKey,
	management.CodeTokenKeyWaiting:    codeKeyWaiting,
	management.CodeTokenKeySigns:      codeKeySigns,
	management.CodeTokenKeyCost:       codeKeyCost,
	management.CodeTokenKeyConfigured: codeKeysFixed,
	management.CodeTokenKeysMissing:   codeKeysMissing,
	management.CodeTokenKeysAway:      codeKeysAway,
}

// newerCodes are the inverse of olderCodes.
var newerCodes = func() map[string]string {
	m := make(map[string]string, len(olderCodes))
	for newer, older := range olderCodes {
		m[older] = newer
	}
	return m
}()

// asOperatorError is the table of what a ledger's errors mean to an operator.
func asOperatorError(err error) *operatorError {
	if e, ok := errors.AsType[*operatorError](err); ok {
		return e
	}
	told := func(status int, code, detail string) *operatorError { return &operatorError{status, code, detail, err} }
	if e, ok := errors.AsType[*management.Error](err); ok {
		return told(e.Status, cmp.Or(olderCodes[e.Code], e.Code), e.Message)
	}
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return told(http.StatusNotFound, codeNoPayment, "there is no payment with this id; check that it is written as it was given")
	case errors.Is(err, ledger.ErrIncomplete):
		return told(http.StatusConflict, codeIncomplete, "a copy into this ledger was begun and is not complete; repeat the command caddy x402 ledger copy")
	case errors.Is(err, ledger.ErrAudit):
		return told(http.StatusConflict, codeBroken, err.Error())
	case errors.Is(err, context.Canceled):
		return told(http.StatusServiceUnavailable, codeUnavailable, "interrupted")
	}
	return told(http.StatusServiceUnavailable, codeUnavailable, "the ledger can't be read now: "+err.Error())
}
