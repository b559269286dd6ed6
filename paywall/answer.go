package paywall

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Reasons of 402 that are the paywall's own.
const (
	ReasonRefund       x402.Reason = "payment_held_for_refund"
	ReasonSuperseded   x402.Reason = "authorization_superseded"
	ReasonPlanOver     x402.Reason = "plan_over"
	ReasonUsedUp       x402.Reason = "plan_used_up"
	ReasonTokenExpired x402.Reason = "token_expired"
	ReasonTokenRevoked x402.Reason = "token_revoked"
	ReasonTokenInvalid x402.Reason = "token_invalid"

	reasonVersion = x402.ReasonInvalidVersion
	reasonAborted = "upstream_aborted"
)

// Codes of answers that are not 402.
const (
	codeStore     = "ledger_unavailable"
	codeChain     = "chain_unavailable"
	codeToken     = "token_unavailable"
	codePending   = "payment_pending"
	codeMalformed = "malformed_payment"
)

// retryAfter is how many seconds a client is asked to wait before it sends the same request again.
const retryAfter = 2

// lastRetryAfter is the most, where it is known that it takes long: the request that comes back can wait here as well.
const lastRetryAfter = time.Minute

var randomness = rand.Reader

// refusal is an answer that is not the upstream's.
type refusal struct {
	status  int
	code    string // for programs
	detail  string // for people: what is wrong and what to do next
	payment string // id, told only to whom the payment belongs
	outcome *settlement.Outcome
	receipt *ledger.Payment // it was paid for: the answer says so, though it is a refusal
	retry   bool            // the same request may succeed later
	wait    time.Duration   // when that is, about; 0: nobody knows
	cause   error           // for logs
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return fmt.Sprintf("paywall: %s: %s: %v", r.code, r.detail, r.cause)
	}
	return fmt.Sprintf("paywall: %s: %s", r.code, r.detail)
}

func (r *refusal) Unwrap() error { return r.cause }

func (r *refusal) retryable() bool {
	return r.retry || r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests
}

func (r *refusal) of(payment string) *refusal   { r.payment = payment; return r }
func (r *refusal) because(cause error) *refusal { r.cause = cause; return r }

// after says how long a payment that is on the chain has to wait until it counts; 0: that is not why it is put off.
func (r *refusal) after(d time.Duration) *refusal {
	if r.wait = d; d > 0 {
		r.detail = "this payment is on the chain and waits for its confirmations; do not sign another one, send the same request, with the same " +
			"payment header, again"
	}
	return r
}

func (r *refusal) settled(payment string, out settlement.Outcome) *refusal {
	r.payment, r.outcome = payment, &out
	return r
}

// refuse is a 402: nothing was charged by this request, and the client may sign (anew).
func refuse(err error) *refusal {
	r := &refusal{status: http.StatusPaymentRequired, code: string(x402.ReasonOf(err)), cause: err}
	if e, ok := errors.AsType[*x402.Error](err); ok {
		r.detail = e.Detail
	}
	return r
}

// unavailable is a 503 for something of ours that does not answer. Nothing is known to be charged; the same
// header may be sent again (rules 5 and 10).
func unavailable(code string, cause error) *refusal {
	return &refusal{
		status: http.StatusServiceUnavailable, code: code, cause: cause,
		detail: "the payment can't be processed now; send the same request, with the same payment header, again",
	}
}

// busy is a 503 for a payment whose outcome is not known yet, or that another copy of the request is using.
func busy(payment string) *refusal {
	return &refusal{
		status: http.StatusServiceUnavailable, code: codePending, payment: payment,
		detail: "this payment is being processed; do not sign another one, send the same request, with the same payment header, again",
	}
}

func malformed(err error) *refusal {
	if x402.ReasonOf(err) != x402.ReasonUndecodable {
		return refuse(err)
	}
	r := refuse(err)
	r.status, r.code = http.StatusBadRequest, codeMalformed
	return r
}

func errUsed() error {
	return x402.Refuse(x402.ReasonNonceUsed, "this authorization was used already; sign a new one")
}

func orReason(code string) x402.Reason {
	if code == "" {
		return x402.ReasonTransactionFailed
	}
	return x402.Reason(code)
}

// panicError is what a guest's panic becomes.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// demand is the 402 of a request that carries no payment. It stores nothing, unless what is asked for by its id is to be kept, and asks
// nobody but a Pricer.
func (a *attempt) demand(reason x402.Reason) error {
	if no, ok := errors.AsType[*refusal](a.noStream()); ok {
		return a.answer(no)
	}
	text := string(reason)
	if text == "" {
		text = "Payment required"
	}
	if no, ok := errors.AsType[*refusal](a.pricedNow()); ok {
		return a.answer(no)
	}
	if a.Access != nil {
		return a.demandAccess(text)
	}
	a.decided("required", string(reason))
	return a.writeOffer(a.w, text)
}

// answer writes a refusal.
func (a *attempt) answer(r *refusal) error { return a.answerOn(a.w, r) }

func (a *attempt) answerOn(w http.ResponseWriter, r *refusal) error {
	outcome := "refused"
	switch r.status {
	case http.StatusServiceUnavailable:
		outcome = "unavailable"
		a.Logger.Warn("a payment was put off", slog.String("code", r.code), slog.String("payment", r.payment), slog.Any("error", r.cause))
	case http.StatusBadRequest:
		outcome = "malformed"
	case http.StatusTooManyRequests:
		outcome = "limited"
	}
	switch r.code {
	case codeInProgress:
		outcome = "unavailable"
	case CodeIssueFailed, CodeIssueTimeout:
		outcome = "unavailable"
		a.Logger.Warn("what was bought could not be issued", slog.String("code", r.code), slog.String("payment", r.payment), slog.Any("error", r.cause))
	}
	a.decided(outcome, r.code)
	h := w.Header()
	if r.status == http.StatusUnauthorized { // the codes are those of API keys
		h.Set("WWW-Authenticate", `Bearer realm="x402"`)
	}
	if r.payment != "" {
		a.filed(r.payment)
		h.Set(headerPaymentID, r.payment)
		switch r.code {
		case string(ReasonRefund):
			h.Set(headerPaymentStatus, statusRefundPending)
		case string(ReasonOwed):
			h.Set(headerPaymentStatus, statusOwed)
		case CodeIssueFailed, CodeIssueTimeout:
			h.Set(headerPaymentStatus, statusPaid)
		}
	}
	if r.receipt != nil {
		a.addGrant(h, r.receipt)
	}
	if a.Access != nil {
		return a.refuseAccess(w, r)
	}
	if r.status != http.StatusPaymentRequired {
		return a.writeProblem(w, r)
	}
	if r.outcome != nil {
		a.addFailure(h, r)
	}
	return a.writeOffer(w, r.code)
}

// writeOffer writes a 402 that serves both versions: the current one reads the header, version 1 the body.
func (a *attempt) writeOffer(w http.ResponseWriter, text string) error {
	key, err := x402.NewResumeKey(randomness)
	if err != nil {
		return a.writeProblem(w, unavailable(codeToken, err))
	}
	f, quote, err := a.offerNow(key)
	if no, ok := errors.AsType[*refusal](err); ok {
		return a.writeProblem(w, no)
	}
	header := string(f.template.AppendQuoted(nil, a.URL, text, key, quote))
	body := f.template.AppendBody(nil, a.URL, text)
	h := w.Header()
	values := []string{header, "application/json", "no-store", strconv.Itoa(len(body))} // one allocation for all
	h[headerRequired] = values[0:1:1]
	h["Content-Type"] = values[1:2:2]
	h["Cache-Control"] = values[2:3:3]
	h["Content-Length"] = values[3:]
	keepUpload(h, a.r)
	w.WriteHeader(http.StatusPaymentRequired)
	if a.r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing the offer: %w", err)
	}
	return nil
}

// keepUpload ends the connection behind an answer to a client that waits for "100 Continue" before it sends its body (RFC 9110,
// section 10.1.1). Otherwise the server would wait for the body, and the client for the answer.
func keepUpload(h http.Header, r *http.Request) {
	if r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		h["Connection"] = []string{"close"}
	}
}

// problem is RFC 9457, with what a payer needs to come back.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Payment   string `json:"payment,omitempty"`
	StatusURL string `json:"statusUrl,omitempty"`
	Retryable bool   `json:"retryable"`
}

func (a *attempt) writeProblem(w http.ResponseWriter, r *refusal) error {
	p := problem{
		Type: "about:blank", Title: http.StatusText(r.status), Status: r.status, Detail: r.detail, Code: r.code,
		Payment: r.payment, Retryable: r.retryable(),
	}
	if a.StatusURL != nil && r.payment != "" {
		p.StatusURL = a.StatusURL(r.payment)
	}
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("writing a problem: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	keepUpload(h, a.r)
	if p.Retryable {
		h.Set("Retry-After", r.comeBack())
	}
	if p.StatusURL != "" {
		h.Set("Link", "<"+p.StatusURL+`>; rel="payment-status"`)
	}
	w.WriteHeader(r.status)
	if a.r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing a problem: %w", err)
	}
	return nil
}

// addReceipt says on a paid answer that the payment succeeded, or will, in the version that the client speaks.
func (a *attempt) addReceipt(h http.Header, p *ledger.Payment) { a.addReceiptOf(h, p, nil) }

// addReceiptOf is addReceipt for a plan that was bought, with what its buyer gets; nil: it gets nothing (yet).
func (a *attempt) addReceiptOf(h http.Header, p *ledger.Payment, c *Credential) {
	s := x402.SettlementResponse{
		Success: true, Payer: p.Payer.Hex(), Transaction: transactionText(p.Transaction), Network: a.networkName(p.ChainID),
		Amount: p.Amount.Dec(),
	}
	if p.Owes() { // its answer is given again
		s.Success, s.ErrorReason, s.ErrorMessage = false, ReasonOwed, "this was served, and its payment did not come through: "+p.Reason
	}
	if c != nil {
		grant := map[string]any{"token": c.Token, "tokenType": c.Type, "plan": p.Binding.Plan, "expiresAt": p.PlanUntil.Unix()}
		a.plan(p.Binding.Plan).describe(grant, p)
		if info, err := json.Marshal(map[string]any{"info": grant}); err == nil {
			s.Extensions = map[string]json.RawMessage{"access-token": info}
		}
	}
	a.setResponse(h, s)
	h.Set(headerPaymentID, p.ID)
}

// transactionText is empty while there is none.
func transactionText(h common.Hash) string {
	if h == (common.Hash{}) {
		return ""
	}
	return h.Hex()
}

func (a *attempt) addFailure(h http.Header, r *refusal) {
	s := x402.SettlementResponse{
		ErrorReason: x402.Reason(r.code), ErrorMessage: r.detail, Network: a.networkName(a.payee.Network.ChainID),
		Payer: a.payload.Authorization.From.Hex(),
	}
	if r.outcome.Transaction != (common.Hash{}) {
		s.Transaction = r.outcome.Transaction.Hex()
	}
	a.setResponse(h, s)
}

func (a *attempt) setResponse(h http.Header, s x402.SettlementResponse) {
	value, err := x402.EncodeHeader(s)
	if err != nil {
		a.Logger.Error("encoding a settlement response failed", slog.Any("error", err))
		return
	}
	if a.version == 1 {
		h.Set(headerResponseV1, value)
		return
	}
	h.Set(headerResponse, value)
}

func (a *attempt) networkName(chainID uint64) string {
	if name := x402.V1Name(chainID); a.version == 1 && name != "" {
		return name
	}
	return networkID(chainID)
}

// comeBack is when the same may be asked again, in whole seconds, as Retry-After has it.
func (r *refusal) comeBack() string {
	if r.code == codeRateLimit { // it is known when
		return strconv.Itoa(int((max(r.wait, time.Second) + time.Second - 1) / time.Second))
	}
	wait := max(retryAfter*time.Second, min(r.wait, lastRetryAfter))
	return strconv.Itoa(int((wait + time.Second - 1) / time.Second))
}
