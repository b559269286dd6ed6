package facilitator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/x402"
)

// kind is what a reply to /settle or /verify means for what may be done next.
type kind int

const (
	// lost: no answer, or none that can be understood. What was asked for may have been done, or may still be.
	lost kind = iota
	// unsent: the facilitator was handed nothing.
	unsent
	// accepted: it says that it has settled, or that it would.
	accepted
	// refused: it says that it has not settled. Nothing more is to come of the request.
	refused
	// pending: it says that it has sent a transaction whose fate it does not know.
	pending
)

// reply is what was understood of an answer. Nothing in it is believed.
type reply struct {
	kind kind
	// transaction is the one that the facilitator names; zero if none.
	transaction common.Hash
	// reason is its code, if that is one; else empty.
	reason x402.Reason
	// spoke: it was a verdict, as the protocol has it; the facilitator is at work.
	spoke bool
	// err tells what happened, for logs.
	err error
}

const (
	reasonPending x402.Reason = "settlement_pending"
	// reasonNoReceipt is the reference's for a transaction that was sent, and whose receipt it did not get.
	reasonNoReceipt x402.Reason = "invalid_exact_evm_failed_to_get_receipt"
)

// codes are what a reason may look like to be repeated to clients and in metrics.
var codes = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,79}$`)

// reading is what may be read differently for each payment: clean makes texts fit for logs, network and payer are those of
// the payment.
type reading struct {
	clean         func(string) string
	network       x402.Network
	payer         common.Address
	verdict       string // "success" or "isValid"
	transactional bool   // a success names a transaction
}

// read understands an answer in both styles: 200 with the verdict false, and 4xx or 5xx with the same JSON.
func (g *reading) read(a answer) reply {
	var members map[string]json.RawMessage
	var verdict bool
	object := json.Unmarshal(a.body, &members) == nil
	if object {
		raw := members[g.verdict]
		object = len(raw) > 0 && string(raw) != "null" && json.Unmarshal(raw, &verdict) == nil
	}
	ok := a.status >= 200 && a.status <= 299
	if !object || verdict && !ok {
		return g.generic(a)
	}
	r := g.details(members)
	if !verdict {
		return r
	}
	r.kind, r.reason, r.err = accepted, "", nil
	if err := g.mismatch(members, r.transaction); err != nil {
		r.kind, r.err, r.spoke = lost, err, false
	}
	return r
}

// generic is the meaning of an answer by its status alone. What a server declines it is not at; behind one that breaks, and
// behind one that speaks of time or of a conflict, somebody may be.
func (g *reading) generic(a answer) reply {
	r := reply{kind: lost, err: fmt.Errorf("HTTP status %d, without a verdict", a.status)}
	switch a.status {
	case http.StatusRequestTimeout, http.StatusConflict, 499:
	default:
		if a.status >= 300 && a.status <= 499 {
			r.kind = refused
		}
	}
	return r
}

// details are those of a verdict that is no.
func (g *reading) details(members map[string]json.RawMessage) reply {
	text := func(names ...string) string {
		for _, name := range names {
			var s string
			if json.Unmarshal(members[name], &s) == nil && s != "" {
				return s
			}
		}
		return ""
	}
	r := reply{kind: refused, spoke: true}
	if code := text("errorReason", "invalidReason"); codes.MatchString(code) {
		r.reason = x402.Reason(code)
	}
	said := g.clean(text("errorReason", "invalidReason") + " " + text("errorMessage", "invalidMessage", "invalidReasonDetails", "error"))
	r.err = fmt.Errorf("refused: %s", said)
	if b, err := hexutil.Decode(text("transaction")); err == nil && len(b) == common.HashLength {
		r.transaction = common.Hash(b)
	}
	switch {
	case r.transaction != (common.Hash{}): // whatever it is called: something was sent
		r.kind = pending
	case r.reason == reasonPending, r.reason == reasonNoReceipt:
		r.kind = lost
	}
	return r
}

var (
	errNoTransaction = errors.New("it says that it has settled, but not by which transaction")
	errOther         = errors.New("it answers for another payment")
)

// mismatch finds that a success is not about this payment.
func (g *reading) mismatch(members map[string]json.RawMessage, transaction common.Hash) error {
	if g.transactional && transaction == (common.Hash{}) {
		return errNoTransaction
	}
	var network, payer string
	_ = json.Unmarshal(members["network"], &network) // absent, or null
	_ = json.Unmarshal(members["payer"], &payer)
	if network != "" && network != g.network.ID && network != g.network.V1Name {
		return errOther
	}
	if payer != "" && common.IsHexAddress(payer) && common.HexToAddress(payer) != g.payer {
		return errOther
	}
	return nil
}
