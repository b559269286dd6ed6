package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types of events. An endpoint's filter names them, or a group such as "payment.*".
const (
	TypeSettled          = "payment.settled"           // the money has come
	TypeSettlementFailed = "payment.settlement_failed" // it will not
	TypeDelivered        = "payment.delivered"         // the payer got what it paid for
	TypeUpstreamFailed   = "payment.upstream_failed"   // it did not
	TypeRefundPending    = "payment.refund_pending"    // the money is to go back
	TypeRefunded         = "payment.refunded"          // it went back
	TypeRefundFailed     = "payment.refund_failed"     // it could not go back: somebody has to look at it
	TypeKeyRotated       = "apikey.rotated"
	TypeKeyRevoked       = "apikey.revoked"
	TypeKeyRotationDue   = "apikey.rotation_due"
	TypeTest             = "webhook.test" // on request; no filter keeps it away
	TypeEndpointDisabled = "webhook.endpoint_disabled"
)

var types = []string{
	TypeSettled, TypeSettlementFailed, TypeDelivered, TypeUpstreamFailed, TypeRefundPending, TypeRefunded, TypeRefundFailed,
	TypeKeyRotated, TypeKeyRevoked, TypeKeyRotationDue, TypeTest, TypeEndpointDisabled,
}

// Types lists the types of events.
func Types() []string { return slices.Clone(types) }

// Event is something that has happened.
type Event struct {
	// ID is the same whoever tells of it and however often, and no other event's: the `webhook-id`. Letters, digits, - and _ only,
	// since what is signed is cut into parts by dots.
	ID   string
	Type string
	At   time.Time
	// Live: real money. Endpoints for the live mode are told of live events alone, those for tests of the others.
	Live bool
	// Network is the CAIP-2 name of the chain that it belongs to, if it does.
	Network string
	// Data is a JSON object; see MaxData.
	Data json.RawMessage
}

// MaxData is how long an event's Data may be, in bytes.
const MaxData = 24 << 10

// errUntellable: the event can't be told to anybody, however often it is tried.
var errUntellable = errors.New("an event can't be told")

// payload is the body of a delivery.
type payload struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Live      bool            `json:"livemode"`
	Network   string          `json:"network,omitempty"`
	Data      json.RawMessage `json:"data"`
}

func (e *Event) payload() (string, error) {
	if !safeID(e.ID) {
		return "", fmt.Errorf("%w: the event's id %q can't be signed", errUntellable, e.ID)
	}
	if len(e.Data) > MaxData {
		return "", fmt.Errorf("%w: the data of event %s are %d bytes, and may be %d", errUntellable, e.ID, len(e.Data), MaxData)
	}
	data := e.Data
	if len(data) == 0 {
		data = json.RawMessage("{}")
	}
	b, err := json.Marshal(payload{ID: e.ID, Type: e.Type, Timestamp: e.At.UTC(), Live: e.Live, Network: e.Network, Data: data})
	if err != nil {
		return "", fmt.Errorf("%w: encoding event %s: %w", errUntellable, e.ID, err)
	}
	return string(b), nil
}

// safeID reports whether s can be the id of an event: nothing that would let two events be signed alike.
func safeID(s string) bool {
	other := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}
	return s != "" && len(s) <= 128 && strings.IndexFunc(s, other) < 0
}

// wanted reports whether a filter lets a type through; an empty one lets everything.
func wanted(filter []string, typ string) bool {
	return len(filter) == 0 || typ == TypeTest || slices.ContainsFunc(filter, func(f string) bool {
		group, all := strings.CutSuffix(f, "*")
		return f == typ || all && strings.HasPrefix(typ, group)
	})
}

// checkFilter refuses names that would never match.
func checkFilter(filter []string) error {
	for _, f := range filter {
		group, all := strings.CutSuffix(f, ".*")
		known := slices.ContainsFunc(types, func(t string) bool { return t == f || all && strings.HasPrefix(t, group+".") })
		if !known {
			return fail(ErrInvalid, CodeEventsInvalid, "there is no event %q; there are %s, and groups such as payment.*", f, strings.Join(types, ", "))
		}
	}
	return nil
}

// Outbox tells what has happened, each event at least once. paywall.Feed is behind it.
type Outbox interface {
	// Start is the cursor of whoever wants to be told what has happened since at.
	Start(at time.Time) (json.RawMessage, error)
	// Next gives the events behind the cursor, oldest first, at most about limit, and the cursor behind them. No events: there are
	// none yet; the cursor may have moved all the same.
	Next(ctx context.Context, cursor json.RawMessage, limit int) ([]Event, json.RawMessage, error)
}

// disabledEvent tells that the endpoint e, which is at version, is told nothing more.
func disabledEvent(e *storedEndpoint, version int64, now time.Time) (Event, error) {
	where, _, _ := strings.Cut(e.URL, "?") // what follows may be a secret of that receiver
	data, err := json.Marshal(map[string]string{"endpointId": e.ID, "url": where, "reason": DisabledGone})
	return Event{
		ID: "evt_" + e.ID + "_" + strconv.FormatInt(version, 10) + "_disabled", Type: TypeEndpointDisabled, At: now, Live: e.Live, Data: data,
	}, err
}
