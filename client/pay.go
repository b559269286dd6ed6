package client

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	minPause     = 100 * time.Millisecond
	firstBackoff = time.Second
	maxBackoff   = 16 * time.Second
)

// Reasons in a receipt of failure that don't say that nothing was taken: the transaction may still land.
const (
	reasonSettlementPending x402.Reason = "settlement_pending"
	reasonNoReceipt         x402.Reason = "invalid_exact_evm_failed_to_get_receipt"
	reasonUnexpectedSettle  x402.Reason = "unexpected_settle_error"
)

// pay sends the payment, and sends it again while its outcome is not known, within the bounds.
func (x *exchange) pay() (*http.Response, error) {
	began := x.c.now()
	for n := 1; ; n++ {
		resp, err := x.send()
		if CodeOf(err) != "" {
			if x.uncertain || x.out.Load() > 0 {
				return nil, x.unknown(err, "the payment was sent, and could not be sent again")
			}
			return nil, err
		}
		open, result := x.outcome(resp, err)
		if open == nil {
			return result, nil
		}
		if open.Code != CodeUnknown {
			return nil, open
		}
		wait, again := x.patience(n, began, open)
		if !again {
			return nil, x.giveUp(open)
		}
		if x.c.OnRetry != nil {
			last := x.report.Attempts[len(x.report.Attempts)-1]
			x.c.OnRetry(x.report, Retry{Number: n, Wait: wait, Status: last.Status, Err: last.Err})
		}
		if err := x.c.pause(x.ctx, wait); err != nil {
			open.Err = err
			return nil, x.giveUp(open)
		}
	}
}

// outcome judges an answer to a payment: a response for the caller, or an error; of CodeUnknown if the same
// payment should be sent again.
func (x *exchange) outcome(resp *http.Response, err error) (*Error, *http.Response) {
	if err != nil {
		x.uncertain = x.uncertain || x.out.Load() > 0
		return x.unknown(err, "no answer came to the payment"), nil
	}
	x.uncertain = x.uncertain || x.out.Load() > 1
	x.readGrant(resp)
	if x.report.Paid() {
		return nil, resp
	}
	switch s := resp.StatusCode; {
	case s == http.StatusPaymentRequired:
		defer drain(resp)
		return x.refused(resp), nil
	case s == http.StatusTooManyRequests, s >= http.StatusInternalServerError:
		defer drain(resp)
		x.uncertain = true
		x.readProblem(resp)
		e := x.unknown(nil, "the server answered %d and does not say whether the payment was taken", s)
		e.RetryAfter = x.retryAfter(resp)
		return e, nil
	}
	return nil, resp
}

// refused judges a 402 to a payment. The server's reason may say that the payment went through after all.
func (x *exchange) refused(resp *http.Response) *Error {
	r := x.report
	var again Report
	if err := again.readOffer(resp); err != nil {
		again = Report{}
	}
	reason := x402.Reason(Printable(again.errorText(), 200))
	detail := "the server says " + quote(string(reason))
	if s := r.Settlement; s != nil && s.ErrorReason != "" {
		reason = s.ErrorReason
		detail = "the server says " + quote(string(reason))
		if s.ErrorMessage != "" && s.ErrorMessage != string(reason) {
			detail += ": " + s.ErrorMessage
		}
	}
	e := &Error{Code: CodeRefused, Detail: detail, Reason: reason, PaymentID: r.PaymentID, StatusURL: r.StatusURL}
	switch reason {
	case reasonSettlementPending, reasonNoReceipt, reasonUnexpectedSettle:
		x.uncertain = true
		e.Code, e.RetryAfter = CodeUnknown, x.retryAfter(resp)
	case x402.ReasonNonceUsed:
		if x.uncertain {
			e.Code = CodeAnswerLost
			e.Detail = "the payment was used by an earlier attempt, whose answer did not arrive (" + detail + ")"
		}
	}
	return e
}

func (x *exchange) unknown(cause error, detail string, args ...any) *Error {
	e := fail(CodeUnknown, cause, detail, args...)
	e.PaymentID, e.StatusURL = x.report.PaymentID, x.report.StatusURL
	return e
}

// giveUp is the last word on a payment without an outcome.
func (x *exchange) giveUp(e *Error) *Error {
	if !x.uncertain && x.out.Load() == 0 {
		e.Code, e.Detail = CodeTransport, "the server could not be reached; the payment was not sent"
	}
	return e
}

// patience gives the pause before the next try, and whether there is one. n counts the tries so far.
func (x *exchange) patience(n int, began time.Time, e *Error) (time.Duration, bool) {
	if x.ctx.Err() != nil || n > or(x.c.MaxRetries, DefaultMaxRetries) {
		return 0, false
	}
	wait := min(firstBackoff<<min(n-1, 10), maxBackoff)
	if e.RetryAfter > 0 {
		wait = e.RetryAfter
	}
	wait = max(wait, minPause)
	left := or(x.c.MaxRetryTime, DefaultMaxRetryTime) - x.c.now().Sub(began)
	// A 500 is no promise that the same request will fare better, and not every server keeps its promises.
	return wait, wait <= left && x.retryable()
}

func (x *exchange) retryable() bool {
	last := x.report.Attempts[len(x.report.Attempts)-1]
	switch last.Status {
	case 0:
		return !errors.Is(last.Err, http.ErrSchemeMismatch)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		http.StatusPaymentRequired:
		return true
	}
	return false
}

// retryAfter reads seconds or a date (RFC 9110, section 10.2.3); 0 where there is neither.
func (x *exchange) retryAfter(resp *http.Response) time.Duration {
	v := resp.Header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return max(time.Duration(s)*time.Second, minPause)
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(x.c.now()), minPause)
	}
	return 0
}
