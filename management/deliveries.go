package management

import (
	"context"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID         string `json:"id" example:"whd_…"`
	EndpointID string `json:"endpointId"`
	EventID    string `json:"eventId" doc:"What receivers know it again by: the header webhook-id"`
	EventType  string `json:"eventType" example:"payment.settled"`
	Livemode   bool   `json:"livemode"`
	Network    string `json:"network,omitempty" doc:"CAIP-2, of what belongs to a chain"`
	Status     string `json:"status" enum:"pending,failed,delivered,dead" doc:"failed: there will be another attempt; dead: there will not"`
	Reason     string `json:"reason,omitempty" doc:"The stable code of why it failed last"`

	AttemptCount       int               `json:"attemptCount" doc:"All attempts; the last of them are listed"`
	Attempts           []DeliveryAttempt `json:"attempts" doc:"Oldest first"`
	CreatedAt          time.Time         `json:"createdAt"`
	LastAttemptAt      *time.Time        `json:"lastAttemptAt"`
	NextAttemptAt      *time.Time        `json:"nextAttemptAt"`
	ResponseStatusCode int               `json:"responseStatusCode,omitempty"`

	Payload string `json:"payload,omitempty" doc:"The body that is sent, each time the same; not in lists"`
}

// DeliveryAttempt is one try to deliver.
type DeliveryAttempt struct {
	At     time.Time `json:"at"`
	Millis int64     `json:"ms" doc:"How long it took"`
	Status int       `json:"status,omitempty" doc:"Of the answer, if there was one"`
	Reason string    `json:"reason,omitempty" doc:"Why it failed, if it did"`
}

func viewAttempt(a *webhooks.Attempt) DeliveryAttempt {
	return DeliveryAttempt{At: a.At, Millis: a.Millis, Status: a.Status, Reason: a.Reason}
}

func viewDelivery(d *webhooks.Delivery) Delivery {
	out := Delivery{
		ID: d.ID, EndpointID: d.EndpointID, EventID: d.EventID, EventType: d.EventType, Livemode: d.Live, Network: d.Network, Status: string(d.Status),
		Reason: d.Reason, AttemptCount: d.AttemptCount, Attempts: []DeliveryAttempt{}, CreatedAt: d.CreatedAt, LastAttemptAt: moment(d.LastAttemptAt),
		NextAttemptAt: moment(d.NextAttemptAt), ResponseStatusCode: d.ResponseStatusCode, Payload: d.Payload,
	}
	for i := range d.Attempts {
		out.Attempts = append(out.Attempts, viewAttempt(&d.Attempts[i]))
	}
	return out
}

type deliveriesInput struct {
	ID     string `path:"id" maxLength:"128"`
	Status string `query:"status" enum:"pending,failed,delivered,dead" doc:"Only those that stand so"`
	PageInput
}

type deliveriesOutput struct {
	Body struct {
		Data []Delivery `json:"data"`
		Page Page       `json:"page"`
	}
}

func listDeliveries(ctx context.Context, x *exchange, in *deliveriesInput) (*deliveriesOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	list, next, err := s.Deliveries(ctx, live, in.ID, webhooks.DeliveryQuery{Status: webhooks.Status(in.Status), After: in.Cursor, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := new(deliveriesOutput)
	out.Body.Data, out.Body.Page.Next = []Delivery{}, next
	for i := range list {
		d := viewDelivery(&list[i])
		d.Payload = ""
		out.Body.Data = append(out.Body.Data, d)
	}
	return out, nil
}

type deliveryInput struct {
	ID       string `path:"id" maxLength:"128"`
	Delivery string `path:"delivery" maxLength:"128"`
}

type deliveryOutput struct{ Body Delivery }

// delivery is the answer with a delivery.
func delivery(d webhooks.Delivery, err error) (*deliveryOutput, error) {
	if err != nil {
		return nil, err
	}
	return &deliveryOutput{viewDelivery(&d)}, nil
}

func getDelivery(ctx context.Context, x *exchange, in *deliveryInput) (*deliveryOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	return delivery(s.Delivery(ctx, live, in.ID, in.Delivery))
}

func redeliver(ctx context.Context, x *exchange, in *deliveryInput) (*deliveryOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	d, err := s.Redeliver(ctx, live, in.ID, in.Delivery)
	if err == nil {
		x.target = d.ID
	}
	return delivery(d, err)
}

func testHook(ctx context.Context, x *exchange, in *hookInput) (*deliveryOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	return delivery(s.TestDelivery(ctx, live, in.ID))
}

type probeOutput struct {
	Body struct {
		Sound    bool            `json:"sound" doc:"It takes what is ours, and refuses what is signed with another secret"`
		Signed   DeliveryAttempt `json:"signed" doc:"Its answer to a test as any other"`
		Tampered DeliveryAttempt `json:"tampered" doc:"Its answer to one that is signed with another secret"`
	}
}

func (a *API) probeHook(ctx context.Context, x *exchange, in *hookInput) (*probeOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	leave, err := a.probes.enter(x.caller)
	if err != nil {
		return nil, err
	}
	defer leave()
	p, err := s.Probe(ctx, live, in.ID)
	if err != nil {
		return nil, err
	}
	out := new(probeOutput)
	out.Body.Sound, out.Body.Signed, out.Body.Tampered = p.Sound(), viewAttempt(&p.Signed), viewAttempt(&p.Tampered)
	return out, nil
}
