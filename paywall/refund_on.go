package paywall

import (
	"net/http"
	"slices"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// RefundOn says which answers of the upstream are no delivery, where the payment was settled before the upstream was asked. That there
// is no answer at all never is one.
type RefundOn struct {
	// ServerErrors are all of status 500 and above, ClientErrors those from 400 to 499, and Statuses single ones.
	ServerErrors, ClientErrors bool
	Statuses                   []int
}

// defaultRefundOn is for routes that don't say it: "not found" is an answer.
var defaultRefundOn = RefundOn{ServerErrors: true}

func (o *RefundOn) covers(status int) bool {
	if o == nil {
		o = &defaultRefundOn
	}
	switch {
	case slices.Contains(o.Statuses, status):
		return true
	case status >= http.StatusInternalServerError:
		return o.ServerErrors
	}
	return o.ClientErrors && status >= http.StatusBadRequest
}

// undelivered reports whether an answer of this status means that the payer did not get what it pays for. failed: the handler has
// given no answer, but an error, which will become one. Who is not lent to pays up front, and as with the flow upfront: the upstream has
// answered, though it may be "not found".
func (d *deliveryWriter) undelivered(status int, failed bool) bool {
	if d.payment.Flow == ledger.FlowAuthorization || d.attempt.loan != nil {
		return status >= http.StatusBadRequest
	}
	return failed && status >= http.StatusInternalServerError || d.attempt.Route.RefundOn.covers(status)
}
