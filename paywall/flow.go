package paywall

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// HeldAnswer is how much of an answer is held back until it is paid for, where a route does not say it (see Route.Held).
const HeldAnswer = 1 << 20

// heldAnswers is how much the answers that are held back may take of memory, all together.
const heldAnswers = 64 << 20

var (
	errFlow     = errors.New("paywall: the flow is not known")
	errPlanFlow = errors.New("paywall: a plan is paid before it is given; sell plans with the flow upfront")
)

// prepareFlow checks what the route says of its flow. All requirements of an offer announce the same one, since clients prefer one
// flow to another before they look at prices; and a plan's token can't be taken back. So plans are sold with upfront alone.
func (r *Route) prepareFlow() error {
	if r.Held <= 0 {
		r.Held = HeldAnswer
	}
	switch r.Flow {
	case "":
		r.Flow = ledger.FlowUpfront
	case ledger.FlowUpfront:
	case ledger.FlowAuthorization, ledger.FlowDeferred:
		if len(r.Plans) > 0 {
			return fmt.Errorf("%w: route %s", errPlanFlow, r.Name)
		}
	default:
		return fmt.Errorf("%w: %q of route %s", errFlow, r.Flow, r.Name)
	}
	return nil
}

const codeStream = "stream_not_sold"

// noStream refuses a request whose answer could not be held back: a connection that is to be taken over, or events. Nobody should
// sign a payment for it.
func (a *attempt) noStream() error {
	if a.Route.Flow != ledger.FlowAuthorization || !wantsStream(a.r) {
		return nil
	}
	return &refusal{
		status: http.StatusNotAcceptable, code: codeStream,
		detail: "answers are held back here until they are paid for, so connections can't be upgraded and events can't be streamed; " +
			"ask without Upgrade, and accept something beside text/event-stream; nothing was charged",
	}
}

// wantsStream reports whether a request asks for a connection of its own (RFC 9110, section 7.8; RFC 8441) or for events alone.
// An upgrade to HTTP/2 is an offer of the client's that no server need take.
func wantsStream(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return true
	}
	upgrade := r.Header.Get("Upgrade")
	if upgrade != "" && !strings.EqualFold(upgrade, "h2c") && listed(r.Header["Connection"], "upgrade") {
		return true
	}
	accepted := strings.Join(r.Header["Accept"], ",")
	if accepted == "" {
		return false
	}
	for kind := range strings.SplitSeq(accepted, ",") {
		if !isEvents(kind) {
			return false
		}
	}
	return true
}

// isEvents reports whether a media type is that of server-sent events.
func isEvents(kind string) bool {
	kind, _, _ = strings.Cut(kind, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// listed reports whether the comma-separated values of a header name what is looked for.
func listed(values []string, what string) bool {
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(name), what) {
				return true
			}
		}
	}
	return false
}
