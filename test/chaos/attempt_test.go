package chaos

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// attempt is one request as its client sees it.
type attempt struct {
	Intent   string      `json:"intent"`
	Payer    int         `json:"payer"`
	Nonce    common.Hash `json:"nonce,omitzero"`
	Instance int         `json:"instance"`
	Start    time.Time   `json:"start"`
	End      time.Time   `json:"end"`
	Status   int         `json:"status,omitempty"`
	Code     string      `json:"code,omitempty"`
	Payment  string      `json:"payment,omitempty"`
	Serial   int         `json:"serial,omitempty"`
	Said     string      `json:"said,omitempty"` // the intent that the answer is for
	Token    bool        `json:"token,omitempty"`
	Held     bool        `json:"held,omitempty"`
	Void     bool        `json:"void,omitempty"` // it says that nothing was charged
	Owed     bool        `json:"owed,omitempty"` // it was served before it was paid
	Paid     bool        `json:"paid,omitempty"` // it says that it was paid
	// Repays is the owed payment that the request pays for, MadeGood the one that the answer says is made good.
	Repays   string `json:"repays,omitempty"`
	MadeGood string `json:"made_good,omitempty"`
	// Cheat: its client has cancelled the authorization, or has emptied its account meanwhile.
	Cheat bool   `json:"cheat,omitempty"`
	Error string `json:"error,omitempty"`

	offer       *x402.PaymentRequired
	accessToken string
}

// broken reports whether the client does not know what it was answered.
func (a *attempt) broken() bool { return a.Error != "" }

// putOff reports whether the client should send the same again: whatever comes from something on the way, and not from the
// upstream.
func (a *attempt) putOff() bool {
	return a.broken() || !a.Held && !a.Void && a.Code != codeNotStored && a.Status != http.StatusOK && a.Status != http.StatusPaymentRequired
}

// send makes one request and reads the answer to its end.
func (p *payer) send(ctx context.Context, in *intent, shop int, within time.Duration, header ...string) *attempt {
	a := &attempt{Intent: in.id, Payer: p.number, Instance: shop, Start: time.Now()}
	defer func() { a.End = time.Now() }()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	body := ""
	if in.method == http.MethodPost {
		body = `{"order":"` + in.id + `"}`
	}
	r, err := http.NewRequestWithContext(ctx, in.method, "http://"+p.shops[shop]+in.path, strings.NewReader(body))
	if err != nil {
		a.Error = err.Error()
		return a
	}
	r.Host = host
	if in.key != "" {
		r.Header.Set("Idempotency-Key", in.key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Do(r)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	defer resp.Body.Close()
	a.read(resp)
	return a
}

func (a *attempt) read(resp *http.Response) {
	a.Status, a.Payment = resp.StatusCode, resp.Header.Get("X-Payment-Id")
	standing := resp.Header.Get("X-Payment-Status")
	a.Held, a.Void, a.Owed = standing == "refund_pending", standing == "void", standing == "owed"
	a.Paid = resp.Header.Get(x402.HeaderResponse) != ""
	a.accessToken = resp.Header.Get("X-Access-Token")
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.Error = err.Error()
		return
	}
	switch a.Status {
	case http.StatusPaymentRequired:
		var o x402.PaymentRequired
		if err := x402.DecodeHeader(resp.Header.Get(x402.HeaderRequired), 1<<20, &o); err != nil {
			a.Error = err.Error()
			return
		}
		a.offer, a.Code = &o, o.Error
	case http.StatusOK:
		var said struct {
			answerBody
			MadeGood string
		}
		if err := json.Unmarshal(body, &said); err != nil {
			a.Error = err.Error()
			return
		}
		a.Serial, a.Said, a.MadeGood = said.Serial, said.Intent, said.MadeGood
	default:
		var problem struct{ Code, Payment string }
		_ = json.Unmarshal(body, &problem) // an upstream's failure has another form
		if a.Code = problem.Code; problem.Payment != "" {
			a.Payment = problem.Payment
		}
	}
}
