package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/x402"
)

// say tells a step to people, complain what they must know in any case.
func (p *payer) say(format string, args ...any) {
	if p.narrate {
		fmt.Fprintf(p.err, format+"\n", args...)
	}
}

func (p *payer) complain(format string, args ...any) {
	fmt.Fprintf(p.err, "caddy x402 pay: "+format+"\n", args...)
}

// openOutput opens the file for the body before anything is paid: an answer that can't be kept is money lost.
func (p *payer) openOutput() error {
	if p.output == "" || p.output == "-" {
		return nil
	}
	f, err := os.OpenFile(p.output, os.O_WRONLY|os.O_CREATE, 0o600) // emptied when there is something to write
	if err != nil {
		return fmt.Errorf("opening --output: %w", err)
	}
	p.body = f
	return nil
}

func (p *payer) closeBody() {
	if p.body != nil {
		if err := p.body.Close(); err != nil {
			p.complain("warning: closing --output: %v", err)
		}
	}
}

func (p *payer) onOffer(r *client.Report) error {
	p.say("< 402 Payment Required (x402 version %d)", r.Version)
	p.say("* %s to %s", priceText(r), client.Printable(r.Requirements.PayTo, 64))
	if r.Offer != nil && r.Offer.Resource.Description != "" {
		p.say("* for: %s", client.Printable(r.Offer.Resource.Description, 200))
	}
	return nil
}

func (p *payer) onRetry(_ *client.Report, r client.Retry) {
	why := fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status))
	if r.Err != nil {
		why = client.Printable(r.Err.Error(), 500)
	}
	p.say("< %s", why)
	p.say("* outcome not known yet; the same payment again in %s (retry %d)", r.Wait.Round(time.Millisecond), r.Number)
}

// priceText is what is paid, for people.
func priceText(r *client.Report) string {
	n := &r.Network
	s := amountText(r) + " " + n.Asset.Symbol + " on " + n.ID
	if n.V1Name != "" {
		s += " (" + n.V1Name + ")"
	}
	if r.Requirements != nil && r.Requirements.Extra.Plan != "" {
		s += `, plan "` + client.Printable(r.Requirements.Extra.Plan, 64) + `"`
	}
	return s
}

func amountText(r *client.Report) string {
	return x402.FormatAmount(&r.Amount, r.Network.Asset.Decimals)
}

// tell shows how a call ended that got an answer, and what a dry run found.
func (p *payer) tell(resp *http.Response, r *client.Report) {
	if resp != nil {
		p.say("< %s", client.Printable(resp.Proto+" "+resp.Status, 200))
	}
	if s := r.Settlement; r.Paid() {
		p.say("* paid; transaction %s", s.Transaction)
	}
	if r.PaymentID != "" {
		p.say("* payment %s", r.PaymentID)
	}
	if r.PaymentStatus != "" {
		p.say("* the server says of the payment: %s", r.PaymentStatus)
	}
	if resp != nil && resp.Header.Get("Location") != "" && resp.StatusCode/100 == 3 {
		p.say("* redirects to %s, which was not followed", client.Printable(resp.Header.Get("Location"), 500))
	}
}

// explain says what went wrong, and what to do about it.
func (p *payer) explain(err error, r *client.Report) {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		p.complain("%v", err)
		return
	}
	text := e.Detail
	if e.Err != nil {
		text += ": " + client.Printable(e.Err.Error(), 500)
	}
	switch e.Code {
	case client.CodeOverCap:
		p.complain("%s (see --max-amount)", text)
	case client.CodeNetwork:
		p.complain("%s; name it with --network to pay there", text)
	case client.CodeAsset:
		p.complain("%s; name it with --asset to pay with it", text)
	case client.CodeRefused:
		p.complain("the payment was refused: %s", text)
	case client.CodeUnknown:
		p.explainUnknown(text, r)
	default:
		p.complain("%s", text)
	}
}

func (p *payer) explainUnknown(text string, r *client.Report) {
	p.complain("the outcome of the payment is not known: %s", text)
	if p.saved != "" {
		p.complain("do NOT pay again; send the same payment later:\n\n  caddy x402 pay --resume %s\n", shellQuote(p.saved))
	} else {
		p.complain("do NOT pay again before %s, when the authorization ends; it could not be kept", validUntil(r).Format(time.RFC3339))
	}
	if r.PaymentID != "" {
		p.complain("payment %s", r.PaymentID)
	}
	if r.StatusURL != "" {
		p.complain("status: %s", r.StatusURL)
	}
}

func validUntil(r *client.Report) time.Time {
	if r.Authorization == nil || !r.Authorization.ValidBefore.IsUint64() {
		return time.Time{}
	}
	return time.Unix(int64(r.Authorization.ValidBefore.Uint64()), 0)
}

// write gives the result to the standard output: one JSON object, or the answer itself.
func (p *payer) write(result *payResult, resp *http.Response, r *client.Report, code int) int {
	var body io.Reader
	if resp != nil {
		body = resp.Body
	}
	var err error
	switch {
	case p.body != nil && body != nil:
		_ = p.body.Truncate(0) // what can't be emptied, such as a pipe, need not be
		_, err = io.Copy(p.body, body)
		if err != nil {
			result.BodyError = client.Printable(err.Error(), 500)
		}
		if p.asJSON {
			err = errors.Join(err, writeResult(p.out, result, nil))
		}
	case p.asJSON:
		err = writeResult(p.out, result, body)
	case resp != nil:
		if p.include {
			p.writeHead(resp)
		}
		_, err = io.Copy(p.out, body)
	case p.dryRun && r.Authorization != nil:
		p.writeQuote(r)
	}
	if err == nil {
		return code
	}
	p.complain("the answer could not be kept whole: %v", err)
	switch {
	case code != exitOK:
		return code
	case r.Payment != nil:
		return exitBadAnswer
	}
	return exitTransport
}

// writeHead shows status and headers, without what others could use.
func (p *payer) writeHead(resp *http.Response) {
	fmt.Fprintf(p.out, "%s\n", client.Printable(resp.Proto+" "+resp.Status, 500))
	shown := shownHeaders(resp.Header)
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		for _, v := range shown[name] {
			fmt.Fprintf(p.out, "%s: %s\n", client.Printable(name, 500), client.Printable(v, 8192))
		}
	}
	fmt.Fprintln(p.out)
}

func shownHeaders(h http.Header) http.Header { return redactMap(h, []string{redactedValue}) }

// writeQuote shows what a dry run found.
func (p *payer) writeQuote(r *client.Report) {
	a := r.Authorization
	from := "(no key was given)"
	if !noPayer(r) {
		from = r.Payer.Hex()
	}
	fmt.Fprintf(p.out, "price    %s\n", priceText(r))
	fmt.Fprintf(p.out, "asset    %s\n", r.Network.Asset.Address)
	fmt.Fprintf(p.out, "from     %s\n", from)
	fmt.Fprintf(p.out, "to       %s\n", a.To)
	fmt.Fprintf(p.out, "until    %s\n", validUntil(r).Format(time.RFC3339))
	fmt.Fprintf(p.out, "version  %d\n", r.Version)
	fmt.Fprintln(p.out, "Nothing was signed, nothing was paid.")
}
