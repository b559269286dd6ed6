package webhooks

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"
)

// Status is how a delivery stands.
type Status string

// The states of a delivery: pending -> delivered; pending -> failed -> … -> delivered or dead. Redeliver makes it pending again.
const (
	StatusPending   Status = "pending"   // not attempted yet
	StatusFailed    Status = "failed"    // an attempt has failed, and there will be another
	StatusDelivered Status = "delivered" // the endpoint has answered 2xx
	StatusDead      Status = "dead"      // it will not be attempted again, unless somebody asks for it
)

// The stable reasons of why an attempt failed, or a delivery is dead.
const (
	ReasonStatus          = "status"           // the answer was neither 2xx nor one of the following
	ReasonRedirect        = "redirect"         // 3xx; no redirect is followed
	ReasonGone            = "gone"             // 410, which disables the endpoint
	ReasonTimeout         = "timeout"          // no answer in time
	ReasonConnection      = "connection"       // the connection was refused or broke, or the name is unknown
	ReasonTLS             = "tls"              // the certificate is not good
	ReasonAddress         = "address_refused"  // the name leads to an address that is not a public one
	ReasonRequest         = "request"          // the request can't be made or signed
	ReasonEndpointRemoved = "endpoint_removed" // the endpoint is gone
	ReasonEndpointOff     = "endpoint_disabled"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID         string `json:"id"`
	EndpointID string `json:"endpointId"`
	// EventID is what receivers know it again by.
	EventID   string `json:"eventId"`
	EventType string `json:"eventType"`
	Live      bool   `json:"livemode"`
	Network   string `json:"network,omitempty"`
	Status    Status `json:"status"`
	// Reason is why it failed last.
	Reason string `json:"reason,omitempty"`
	// AttemptCount counts all attempts; Attempts are the last of them, oldest first.
	AttemptCount       int       `json:"attemptCount"`
	Attempts           []Attempt `json:"attempts,omitempty"`
	CreatedAt          time.Time `json:"createdAt"`
	LastAttemptAt      time.Time `json:"lastAttemptAt,omitzero"`
	NextAttemptAt      time.Time `json:"nextAttemptAt,omitzero"`
	ResponseStatusCode int       `json:"responseStatusCode,omitempty"`
	// Payload is the body that is sent, each time the same.
	Payload string `json:"payload"`
}

// Attempt is one try to deliver.
type Attempt struct {
	At     time.Time `json:"at"`
	Millis int64     `json:"ms"`               // how long it took
	Status int       `json:"status,omitempty"` // of the answer, if there was one
	Reason string    `json:"reason,omitempty"` // why it failed, if it did
}

// keptAttempts are more than one way through the schedule makes.
const keptAttempts = 20

// storedDelivery is a Delivery as the ledger has it.
type storedDelivery struct {
	Delivery
	// Tried counts the attempts since it was made, or made pending again.
	Tried int `json:"tried"`
	// Leased is until when an instance is attempting it; the object is due again then.
	Leased time.Time `json:"leased,omitzero"`
}

const deliveryPrefix = "whd_"

// deliveryID follows from the endpoint and the event, so that nobody can make a second one. The newest sorts first.
func deliveryID(endpoint string, ev *Event) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], math.MaxInt64-uint64(max(0, ev.At.UnixMicro())))
	h := sha256.Sum256([]byte(endpoint + " " + ev.ID))
	return deliveryPrefix + encoding.EncodeToString(append(b[:], h[:12]...))
}

func newDelivery(endpoint string, ev *Event, now time.Time) (storedDelivery, error) {
	body, err := ev.payload()
	if err != nil {
		return storedDelivery{}, err
	}
	return storedDelivery{Delivery: Delivery{
		ID: deliveryID(endpoint, ev), EndpointID: endpoint, EventID: ev.ID, EventType: ev.Type, Live: ev.Live, Network: ev.Network,
		Status: StatusPending, CreatedAt: now, NextAttemptAt: now, Payload: body,
	}}, nil
}

// attempted writes down how an attempt ended, and what comes next.
func (d *storedDelivery) attempted(o outcome, now time.Time) {
	d.Tried++
	d.AttemptCount++
	d.Leased = time.Time{}
	d.LastAttemptAt, d.ResponseStatusCode, d.Reason = o.at, o.status, o.reason
	d.Attempts = append(d.Attempts, o.attempt())
	if n := len(d.Attempts) - keptAttempts; n > 0 {
		d.Attempts = d.Attempts[n:]
	}
	wait, again := delay(d.Tried, o.retryAfter)
	switch {
	case o.reason == "":
		d.end(StatusDelivered, "")
	case o.reason == ReasonGone || !again:
		d.end(StatusDead, o.reason)
	default:
		d.Status, d.NextAttemptAt = StatusFailed, now.Add(wait)
	}
}

// end says that nothing more is to be done.
func (d *storedDelivery) end(status Status, reason string) {
	d.Status, d.Reason, d.NextAttemptAt = status, reason, time.Time{}
}

func (d *storedDelivery) over() bool { return d.Status == StatusDelivered || d.Status == StatusDead }
