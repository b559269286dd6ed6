package management

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

const kindAudit = "operator_audit"

// Deed is something that an operator, or its program, has changed or tried to.
type Deed struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// Actor is the id of an API key, or admin for who used the admin endpoint of the machine.
	Actor     string `json:"actor" doc:"The id of an API key, or admin for the machine's own admin endpoint"`
	Operation string `json:"operation" doc:"The operation's id in this document"`
	Target    string `json:"target,omitempty" doc:"The id of what it is about"`
	Network   string `json:"network,omitempty" doc:"X-Network; empty where it is about both"`
	// Outcome is done, the code of the error, or begun where that is not known: the process died.
	Outcome   string `json:"outcome" doc:"done, the code of an error, or begun where nobody knows"`
	RequestID string `json:"requestId"`
}

const (
	outcomeBegun = "begun"
	outcomeDone  = "done"
	maxTarget    = 128
)

// audited has a call written down, and done.
func (a *API) audited(ctx context.Context, x *exchange, do func() error) error {
	deed := Deed{Actor: x.caller.actor, Operation: x.rule.id, Target: x.r.PathValue("id"), Network: x.network, RequestID: x.id}
	return x.shop.Audited(ctx, a.log, deed, func() (string, error) {
		err := do()
		return x.target, err
	})
}

// Local is a Deed of who sits at the machine and does not use the API.
func Local(operation, target string) Deed {
	return Deed{Actor: localActor, Operation: operation, Target: target, RequestID: newRequestID()}
}

// Audited writes down that something is about to be changed, has it done, and writes down what became of it. What can't be written down is not done. do may
// tell what it was about, if that is not known before.
func (s *Shop) Audited(ctx context.Context, log *slog.Logger, deed Deed, do func() (target string, err error)) error {
	now := s.Store.Now()
	deed.ID, deed.At, deed.Outcome = deedID(now), now, outcomeBegun
	if deed.Target = concealed(ledger.Text(deed.Target)); len(deed.Target) > maxTarget { // there is nothing with a longer id
		deed.Target = ""
	}
	if deed.Network == "" {
		deed.Network = s.Lock()
	}
	version, err := putDeed(ctx, s.Store, &deed, 0)
	if err != nil {
		return unavailable(err)
	}
	target, failed := do()
	if deed.Outcome = outcomeDone; failed != nil {
		deed.Outcome = asError(failed).Code
	}
	if target != "" {
		deed.Target = target
	}
	log.InfoContext(ctx, "an operator's call", slog.String("actor", deed.Actor), slog.String("operation", deed.Operation),
		slog.String("target", deed.Target), slog.String("network", deed.Network), slog.String("outcome", deed.Outcome), slog.String("request", deed.RequestID))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if _, err := putDeed(ctx, s.Store, &deed, version); err != nil {
		log.WarnContext(ctx, "the outcome of an operator's call can't be written down; it stays begun", slog.String("request", deed.RequestID), slog.Any("error", err))
	}
	return failed
}

// concealed is a text that a caller has sent, without what may be a secret in a wrong place, such as that of a key where its id should be.
func concealed(s string) string {
	for _, prefix := range [...]string{"sk_test_", "sk_live_", webhooks.SecretPrefix} {
		if i := strings.Index(s, prefix); i >= 0 {
			return s[:i+len(prefix)] + "…"
		}
	}
	return s
}

// deedID is an id that sorts before all that are older.
func deedID(at time.Time) string {
	return fmt.Sprintf("%016x-%s", math.MaxInt64-at.UnixMicro(), strings.ToLower(rand.Text()[:12]))
}

func putDeed(ctx context.Context, s ledger.Store, d *Deed, version int64) (int64, error) {
	body, err := json.Marshal(d)
	if err != nil {
		return 0, fmt.Errorf("encoding what an operator does: %w", err)
	}
	o, err := s.PutObject(ctx, ledger.Object{Kind: kindAudit, ID: d.ID, Group: d.Network, Version: version, Body: body})
	return o.Version, err
}

// deeds lists what was done, newest first, after the one with that id.
func deeds(ctx context.Context, x *exchange, after string, limit int) ([]Deed, error) {
	list, err := x.shop.Store.Objects(ctx, kindAudit, x.network, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Deed, len(list))
	for i := range list {
		if err := json.Unmarshal(list[i].Body, &out[i]); err != nil {
			return nil, told(http.StatusInternalServerError, CodeUnhandled, "an entry of the audit can't be read", err)
		}
	}
	return out, nil
}
