package paywall

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The wire of `POST /x402/access` is Key0's: its 402, its AccessGrant and its errors, so that its clients need no change. What is not in
// these is added beside it, never in its place.

// extensionKey0 is the entry of an order's offer that says what may be sent and what comes back.
const extensionKey0 = "key0"

// AccessGrant is the answer to who has bought a plan by an order.
type AccessGrant struct {
	Type             string `json:"type"` // "AccessGrant"
	ChallengeID      string `json:"challengeId"`
	RequestID        string `json:"requestId"`
	AccessToken      string `json:"accessToken"`
	TokenType        string `json:"tokenType"`
	ResourceEndpoint string `json:"resourceEndpoint"`
	ResourceID       string `json:"resourceId"`
	PlanID           string `json:"planId"`
	TxHash           string `json:"txHash"`
	ExplorerURL      string `json:"explorerUrl"`
	// ExpiresAt is when the token ends, RFC 3339.
	ExpiresAt string `json:"expiresAt,omitempty"`
	// PaymentID is what the payment is known by, here and in the token.
	PaymentID string `json:"paymentId"`
}

func (a *attempt) accessGrant(p *ledger.Payment, c *Credential) AccessGrant {
	g := AccessGrant{
		Type: "AccessGrant", ChallengeID: p.ID, RequestID: a.Access.RequestID, AccessToken: c.Token, TokenType: c.Type,
		ResourceEndpoint: a.Access.Endpoint, ResourceID: a.Access.ResourceID, PlanID: a.Access.Item,
		TxHash: transactionText(p.Transaction), ExplorerURL: ExplorerURL(networkID(p.ChainID), transactionText(p.Transaction)),
		ExpiresAt: p.PlanUntil.UTC().Format(time.RFC3339), PaymentID: p.ID,
	}
	if a.challenge != nil {
		g.ChallengeID = a.challenge.ID
	}
	if g.RequestID == "" {
		g.RequestID = p.ID
	}
	return g
}

// ExplorerURL is where people may look at a transaction; empty where no explorer is known.
func ExplorerURL(network, transaction string) string {
	if transaction == "" {
		return ""
	}
	switch network {
	case "eip155:8453":
		return "https://basescan.org/tx/" + transaction
	case "eip155:84532":
		return "https://sepolia.basescan.org/tx/" + transaction
	}
	return ""
}

// newRequestID names the request of a client that did not.
func newRequestID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(randomness, b[:]); err != nil {
		return "", fmt.Errorf("making a request id: %w", err)
	}
	return planChallenge + hex.EncodeToString(b[:]), nil
}

// maxRequestID is how long a request id may be.
const maxRequestID = 200

// ValidRequestID reports whether a client may name its request so: printable, and not too long.
func ValidRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}

// echoedRequest reads the request id that clients of x402 send back with the offer's extensions, though they know nothing of it.
func echoedRequest(entry json.RawMessage) string {
	var extension struct {
		Info struct {
			RequestID string `json:"requestId"`
		} `json:"info"`
	}
	if absent(entry) || json.Unmarshal(entry, &extension) != nil || !ValidRequestID(extension.Info.RequestID) {
		return ""
	}
	return extension.Info.RequestID
}

// accessOffer is the offer of an order: what PAYMENT-REQUIRED holds.
func (a *attempt) accessOffer() (x402.PaymentRequired, error) {
	resource, err := json.Marshal(map[string]string{
		"url": a.URL, "method": a.r.Method, "description": a.Access.Description, "mimeType": "application/json",
	})
	if err != nil {
		return x402.PaymentRequired{}, err
	}
	key, err := x402.NewResumeKey(randomness)
	if err != nil {
		return x402.PaymentRequired{}, err
	}
	f, quote, err := a.offerNow(key)
	if err != nil {
		return x402.PaymentRequired{}, err
	}
	o := x402.PaymentRequired{
		X402Version: 2, Accepts: f.accepts, Resource: x402.ResourceInfo{URL: a.URL, Raw: resource},
		Extensions: map[string]json.RawMessage{x402.ExtensionResume: x402.QuotedExtension(key, quote)},
	}
	key0 := map[string]any{"description": a.Access.Description}
	maps.Copy(key0, a.Access.Key0)
	if a.challenge != nil {
		key0["info"] = map[string]string{"challengeId": a.challenge.ID, "requestId": a.challenge.RequestID}
	}
	if o.Extensions[extensionKey0], err = json.Marshal(key0); err != nil {
		return x402.PaymentRequired{}, err
	}
	return o, nil
}

// accessRequired is the body of an order's 402.
type accessRequired struct {
	x402.PaymentRequired
	ChallengeID string `json:"challengeId,omitempty"`
	RequestID   string `json:"requestId,omitempty"`
	Error       string `json:"error"`
}

func (a *attempt) writeAccessOffer(text string) error {
	offer, err := a.accessOffer()
	if err != nil {
		return a.answer(unavailable(codeToken, err))
	}
	body, err := json.Marshal(accessRequired{
		PaymentRequired: offer, ChallengeID: a.challenge.ID, RequestID: a.challenge.RequestID, Error: text,
	})
	if err != nil {
		return a.answer(unavailable(codeToken, err))
	}
	if err := a.offerHeaders(a.w.Header(), offer); err != nil {
		return a.answer(unavailable(codeToken, err))
	}
	return writeJSON(a.w, http.StatusPaymentRequired, body)
}

func (a *attempt) offerHeaders(h http.Header, offer x402.PaymentRequired) error {
	value, err := x402.EncodeHeader(offer)
	if err != nil {
		return err
	}
	challenge := ""
	if a.challenge != nil {
		challenge = a.challenge.ID
	}
	h.Set(headerRequired, value)
	h.Set("WWW-Authenticate", fmt.Sprintf(`Payment realm=%q, accept="exact", challenge=%q`, a.Access.Base, challenge))
	return nil
}

// AccessError is how an order is refused, in Key0's form.
type AccessError struct {
	Type    string `json:"type"` // "Error"
	Code    string `json:"code"`
	Message string `json:"message"`
	// Details are for programs that know more than Key0's codes.
	Details *AccessErrorDetails `json:"details,omitempty"`
}

// AccessErrorDetails say of an AccessError what other answers of a gate say.
type AccessErrorDetails struct {
	Reason    string `json:"reason"`
	Payment   string `json:"payment,omitempty"`
	StatusURL string `json:"statusUrl,omitempty"`
	Retryable bool   `json:"retryable"`
}

// Key0's codes of what may be wrong with an order.
const (
	CodeInvalidRequest   = "INVALID_REQUEST"
	CodePaymentFailed    = "PAYMENT_FAILED"
	CodeChallengeExpired = "CHALLENGE_EXPIRED"
	CodeSettlementFailed = "SETTLEMENT_FAILED"
	CodeInternalError    = "INTERNAL_ERROR"
	CodeRateLimited      = "RATE_LIMITED"
	CodeRedeemed         = "PROOF_ALREADY_REDEEMED"
)

// notJSON is what Key0 says of a header that can't be read.
const notJSON = "Invalid PAYMENT-SIGNATURE header: must be base64url-encoded JSON"

// accessCode gives the code of a refusal, and the text that goes before its own.
func accessCode(r *refusal) (code, text string) {
	switch {
	case r.code == codeMalformed:
		return CodeInvalidRequest, notJSON + ": "
	case r.code != "" && strings.ToUpper(r.code) == r.code:
		return r.code, ""
	case r.status == http.StatusPaymentRequired:
		return CodePaymentFailed, "Payment verification failed: " + r.code + ": "
	case r.status == http.StatusTooManyRequests:
		return CodeRateLimited, ""
	case r.status < http.StatusInternalServerError:
		return CodeInvalidRequest, ""
	case r.code == codePending:
		return CodeSettlementFailed, ""
	}
	return CodeInternalError, ""
}

// refuseAccess writes a refusal as Key0 does. A 402 has an offer, as all have.
func (a *attempt) refuseAccess(w http.ResponseWriter, r *refusal) error {
	code, text := accessCode(r)
	e := AccessError{Type: "Error", Code: code, Message: strings.TrimSuffix(text+r.detail, ": "), Details: &AccessErrorDetails{
		Reason: r.code, Payment: r.payment, Retryable: r.retryable(),
	}}
	h := w.Header()
	if a.StatusURL != nil && r.payment != "" {
		e.Details.StatusURL = a.StatusURL(r.payment)
		h.Set("Link", "<"+e.Details.StatusURL+`>; rel="payment-status"`)
	}
	if r.status == http.StatusPaymentRequired {
		if r.outcome != nil {
			a.addFailure(h, r)
		}
		offer, err := a.accessOffer()
		if no, ok := errors.AsType[*refusal](err); ok { // nobody knows what it costs
			return a.refuseAccess(w, no)
		}
		if err == nil {
			err = a.offerHeaders(h, offer)
		}
		if err != nil {
			return fmt.Errorf("writing an offer: %w", err)
		}
	}
	if e.Details.Retryable {
		h.Set("Retry-After", r.comeBack())
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing a refusal: %w", err)
	}
	return writeJSON(w, r.status, body)
}

// writeJSON answers with an object of ours, which is for this client alone.
func writeJSON(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	return nil
}

func otherAccess() *refusal {
	return &refusal{
		status: http.StatusConflict, code: CodeInvalidRequest,
		detail: "this requestId is in use for another request; take a new one; nothing was charged",
	}
}

func takenAccess() *refusal {
	return &refusal{
		status: http.StatusConflict, code: CodeInvalidRequest,
		detail: "this requestId was paid for by another payer; take a new one; nothing was charged",
	}
}

// answeredAccess is for a call of a route that was answered, where answers are not kept.
func answeredAccess(p *ledger.Payment) *refusal {
	return &refusal{
		status: http.StatusConflict, code: CodeRedeemed, payment: p.ID,
		detail: "this requestId was paid for and answered, and the answer is not kept; take a new one; nothing was charged",
	}
}

func accessOver(text string) *refusal {
	return &refusal{status: http.StatusGone, code: CodeChallengeExpired, detail: text}
}

func tooManyChallenges() *refusal {
	return &refusal{
		status: http.StatusTooManyRequests, code: CodeRateLimited,
		detail: "too many requests without a payment came from your address; wait before you send the next one",
	}
}
