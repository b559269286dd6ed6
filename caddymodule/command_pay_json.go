package caddymodule

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/client"
)

// payResult is the JSON object that the pay command prints; its help documents it.
type payResult struct {
	Outcome         string      `json:"outcome"`
	Paid            bool        `json:"paid"`
	URL             string      `json:"url"`
	Method          string      `json:"method"`
	Status          int         `json:"status"`
	X402Version     int         `json:"x402Version,omitempty"`
	Network         string      `json:"network,omitempty"`
	Asset           string      `json:"asset,omitempty"`
	Amount          string      `json:"amount,omitempty"`
	AmountDecimal   string      `json:"amountDecimal,omitempty"`
	Symbol          string      `json:"symbol,omitempty"`
	PayTo           string      `json:"payTo,omitempty"`
	Payer           string      `json:"payer,omitempty"`
	Plan            string      `json:"plan,omitempty"`
	Nonce           string      `json:"nonce,omitempty"`
	ValidBefore     int64       `json:"validBefore,omitempty"`
	Payment         string      `json:"payment,omitempty"`
	StatusURL       string      `json:"statusUrl,omitempty"`
	PaymentStatus   string      `json:"paymentStatus,omitempty"`
	Transaction     string      `json:"transaction,omitempty"`
	Attempts        int         `json:"attempts"`
	SavedPayment    string      `json:"savedPayment,omitempty"`
	AccessTokenFile string      `json:"accessTokenFile,omitempty"`
	Error           *payError   `json:"error,omitempty"`
	Offer           any         `json:"offer,omitempty"`
	Headers         http.Header `json:"headers,omitempty"`
	BodyError       string      `json:"bodyError,omitempty"`
}

type payError struct {
	Code              client.Code `json:"code"`
	Detail            string      `json:"detail"`
	Reason            string      `json:"reason,omitempty"`
	RetryAfterSeconds int         `json:"retryAfterSeconds,omitempty"`
}

// result says in one object how it ended.
func (p *payer) result(resp *http.Response, r *client.Report, err error) *payResult {
	out := &payResult{
		Outcome: outcomeOf(resp, r, err), Paid: r.Paid(), Method: r.Method, Status: r.Status, X402Version: r.Version,
		Payment: r.PaymentID, StatusURL: r.StatusURL, PaymentStatus: r.PaymentStatus, Attempts: len(r.Attempts),
		SavedPayment: p.saved,
	}
	if r.URL != nil {
		out.URL = r.URL.Redacted()
	}
	if r.Settlement != nil {
		out.Transaction = r.Settlement.Transaction
	}
	out.addTerms(r)
	if r.Payment == nil && (p.dryRun || err != nil) {
		if r.Offer != nil {
			out.Offer = r.Offer
		} else if r.OfferV1 != nil {
			out.Offer = r.OfferV1
		}
	}
	if resp != nil && p.include {
		out.Headers = shownHeaders(resp.Header)
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		detail := e.Detail
		if e.Err != nil {
			detail += ": " + client.Printable(e.Err.Error(), 500)
		}
		out.Error = &payError{Code: e.Code, Detail: detail, Reason: string(e.Reason), RetryAfterSeconds: int(math.Ceil(e.RetryAfter.Seconds()))}
	}
	return out
}

// addTerms adds what was, or would be, paid.
func (pr *payResult) addTerms(r *client.Report) {
	a := r.Authorization
	if a == nil {
		return
	}
	pr.Network, pr.Amount, pr.PayTo, pr.Nonce = r.Network.ID, r.Amount.Dec(), a.To.Hex(), a.Nonce.Hex()
	if asset := &r.Network.Asset; asset.Address != (common.Address{}) {
		pr.Asset, pr.AmountDecimal, pr.Symbol = asset.Address.Hex(), amountText(r), asset.Symbol
	}
	if !noPayer(r) {
		pr.Payer = r.Payer.Hex()
	}
	if r.Requirements != nil {
		pr.Plan = client.Printable(r.Requirements.Extra.Plan, 64)
	}
	pr.ValidBefore = validUntil(r).Unix()
}

// noPayer: there was no key, hence no payer.
func noPayer(r *client.Report) bool { return r.Payer == (common.Address{}) }

// outcomeOf is the word of the help for how a call ended.
func outcomeOf(resp *http.Response, r *client.Report, err error) string {
	switch code := client.CodeOf(err); {
	case r.Paid():
		return "paid"
	case code == client.CodeUnknown:
		return "unknown"
	case code == client.CodeRefused:
		return "refused"
	case code == client.CodeTransport, code == client.CodeRequest, code == client.CodeAnswerLost:
		return "failed"
	case err != nil:
		return "declined"
	case resp == nil:
		return "dry_run"
	case r.Payment == nil:
		return "free"
	case resp.StatusCode >= http.StatusBadRequest:
		return "refused"
	}
	return "served"
}

// maxTextBody is how much of a body is judged whether it is text, and held in memory.
const maxTextBody = 1 << 20

// writeResult prints the object, with the body as its last member: as text, or else in base64 as it comes, so
// that its length is no matter. The error is the body's, or the writer's.
func writeResult(w io.Writer, result *payResult, body io.Reader) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(result); err != nil {
		return fmt.Errorf("encoding the result: %w", err)
	}
	if body == nil {
		_, err := w.Write(buf.Bytes())
		return err
	}
	buf.Truncate(buf.Len() - len("}\n"))
	head, bodyErr := io.ReadAll(io.LimitReader(body, maxTextBody+1))
	if len(head) <= maxTextBody && utf8.Valid(head) {
		buf.WriteString(`,"body":`)
		if err := enc.Encode(string(head)); err != nil {
			return fmt.Errorf("encoding the body: %w", err)
		}
		buf.Truncate(buf.Len() - 1)
		if _, err := w.Write(buf.Bytes()); err != nil {
			return err
		}
	} else {
		buf.WriteString(`,"bodyBase64":"`)
		if _, err := w.Write(buf.Bytes()); err != nil {
			return err
		}
		b64 := base64.NewEncoder(base64.StdEncoding, w)
		if _, err := b64.Write(head); err != nil {
			return err
		}
		if bodyErr == nil {
			_, bodyErr = io.Copy(b64, body)
		}
		if err := b64.Close(); err != nil {
			return err
		}
		if _, err := io.WriteString(w, `"`); err != nil {
			return err
		}
	}
	return errors.Join(bodyErr, endResult(w, bodyErr))
}

func endResult(w io.Writer, bodyErr error) error {
	end := "}\n"
	if bodyErr != nil {
		text, err := json.Marshal(client.Printable(bodyErr.Error(), 500))
		if err != nil {
			return err
		}
		end = `,"bodyError":` + string(text) + end
	}
	_, err := io.WriteString(w, end)
	return err
}

// shellQuote writes a path so that a shell takes it as it is.
func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
