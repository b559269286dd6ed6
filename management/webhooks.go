package management

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

const tagHooks = "Webhooks"

func (a *API) addHooks() {
	manage := apikey.WebhooksManage
	add(a, operation{
		rule: rule{id: "createWebhook", method: http.MethodPost, scope: manage, keyRequired: true}, path: "/v1/webhooks", tag: tagHooks,
		status: http.StatusCreated, summary: "Makes an endpoint that is told what happens from now on",
		description: "What its deliveries are signed with is in this answer and nowhere else, not even when the call is made again. It is of the network of `X-Network`: " +
			"an endpoint is told of real money or of test networks, never of both.",
	}, createHook)
	add(a, operation{
		rule: rule{id: "listWebhooks", method: http.MethodGet, scope: manage}, path: "/v1/webhooks", tag: tagHooks,
		summary: "Lists the endpoints of webhooks, those of the configuration too, in the order of their ids",
	}, listHooks)
	add(a, operation{
		rule: rule{id: "getWebhook", method: http.MethodGet, scope: manage}, path: "/v1/webhooks/{id}", tag: tagHooks,
		summary: "Shows an endpoint",
	}, getHook)
	add(a, operation{
		rule: rule{id: "updateWebhook", method: http.MethodPatch, scope: manage}, path: "/v1/webhooks/{id}", tag: tagHooks,
		summary:     "Changes an endpoint, or stops it",
		description: "What is left out stays. One that is made active again is told of what happens from then on; what died meanwhile can be delivered again.",
	}, updateHook)
	add(a, operation{
		rule: rule{id: "deleteWebhook", method: http.MethodDelete, scope: manage}, path: "/v1/webhooks/{id}", tag: tagHooks,
		status: http.StatusNoContent, summary: "Removes an endpoint; what is still to be told to it is dead",
	}, deleteHook)
	add(a, operation{
		rule: rule{id: "rotateWebhookSecret", method: http.MethodPost, scope: manage, keyRequired: true}, path: "/v1/webhooks/{id}/rotate-secret", tag: tagHooks,
		summary: "Gives an endpoint a new secret",
		description: "Until the overlap ends, deliveries carry a signature by each: 24 hours, or `overlapSeconds`, up to 30 days. 0 is for a secret that has leaked. " +
			"The new one is in this answer and nowhere else.",
	}, rotateHookSecret)
	a.addDeliveries()
}

func (a *API) addDeliveries() {
	manage := apikey.WebhooksManage
	add(a, operation{
		rule: rule{id: "listDeliveries", method: http.MethodGet, scope: manage}, path: "/v1/webhooks/{id}/deliveries", tag: tagHooks,
		summary:     "Lists what an endpoint was told, and is to be told, newest first",
		description: "With a `status` a page may hold fewer than `limit`, even none: go on while there is a `next`.",
	}, listDeliveries)
	add(a, operation{
		rule: rule{id: "getDelivery", method: http.MethodGet, scope: manage}, path: "/v1/webhooks/{id}/deliveries/{delivery}", tag: tagHooks,
		summary: "Shows a delivery with its attempts",
	}, getDelivery)
	add(a, operation{
		rule: rule{id: "redeliver", method: http.MethodPost, scope: manage}, path: "/v1/webhooks/{id}/deliveries/{delivery}/redeliver", tag: tagHooks,
		status: http.StatusAccepted, summary: "Delivers again what has arrived, or was given up, or waits",
		description: "The receiver gets the same event under the same id, and the whole schedule is before it again.",
	}, redeliver)
	add(a, operation{
		rule: rule{id: "testWebhook", method: http.MethodPost, scope: manage}, path: "/v1/webhooks/{id}/test", tag: tagHooks,
		status: http.StatusAccepted, summary: "Sends an endpoint the event webhook.test",
		description: "As if something had happened: signed, logged and tried again. See the delivery for what came of it.",
	}, testHook)
	add(a, operation{
		rule: rule{id: "probeWebhook", method: http.MethodPost, scope: manage}, path: "/v1/webhooks/{id}/probe", tag: tagHooks,
		summary:     "Asks an endpoint whether it takes what is ours, and nothing else",
		description: "By two events webhook.test, the second of which is signed with another secret; waits for both answers, and changes nothing.",
	}, a.probeHook)
}

// Webhook is an endpoint that is told what happens.
type Webhook struct {
	ID             string     `json:"id" example:"we_0c2k4h6n8q1s3u5v7a9b0d1e2f"`
	URL            string     `json:"url"`
	Description    string     `json:"description,omitempty"`
	Events         []string   `json:"events" doc:"The types that it is told of, and groups such as payment.*; none: all"`
	Network        string     `json:"network" enum:"testnet,mainnet" doc:"The X-Network that it is of"`
	Livemode       bool       `json:"livemode"`
	Compatibility  bool       `json:"compatibility" doc:"Whether it gets headers that receivers know which were written for Blockchain0x"`
	Active         bool       `json:"active"`
	DisabledReason string     `json:"disabledReason,omitempty" doc:"gone: it answered 410; operator: somebody said so"`
	Configured     bool       `json:"configured" doc:"It stands in the configuration, and is changed there"`
	CreatedAt      time.Time  `json:"createdAt"`
	UpdatedAt      time.Time  `json:"updatedAt"`
	OverlapEndsAt  *time.Time `json:"overlapEndsAt" doc:"Until when deliveries are signed with the former secret, too"`
}

// WebhookWithSecret is an endpoint whose secret was just made.
type WebhookWithSecret struct {
	Webhook
	Secret *string `json:"signingSecret" doc:"Shown once; null when the call is made again"`
}

func viewHook(e *webhooks.Endpoint) Webhook {
	out := Webhook{
		ID: e.ID, URL: e.URL, Description: e.Description, Events: e.Events, Network: network(!e.Live), Livemode: e.Live, Compatibility: e.Compatibility,
		Active: e.Active, DisabledReason: e.DisabledReason, Configured: e.Configured, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
		OverlapEndsAt: moment(e.OverlapEndsAt),
	}
	if out.Events == nil {
		out.Events = []string{}
	}
	return out
}

// hooks are the webhooks of the network that is asked about.
func (x *exchange) hooks() (s *webhooks.Service, live bool, err error) {
	if x.shop.Webhooks == nil {
		return nil, false, told(http.StatusConflict, CodeHooksOff,
			"there are no webhooks here: the configuration has neither x402_management, nor webhook or webhooks in the global option x402", nil)
	}
	switch x.mode() {
	case apikey.Live:
		return x.shop.Webhooks, true, nil
	case apikey.Test:
		return x.shop.Webhooks, false, nil
	}
	return nil, false, told(http.StatusBadRequest, CodeNetworkRequired, "there are networks of both kinds; say by X-Network which it is about: mainnet or testnet", nil)
}

type createHookInput struct {
	Body struct {
		URL           string   `json:"url" minLength:"1" maxLength:"2048" doc:"https; for test networks also http"`
		Events        []string `json:"events,omitempty" maxItems:"50" doc:"The types that it is told of, such as payment.settled, and groups such as payment.*. Default: all"`
		Description   string   `json:"description,omitempty" maxLength:"280"`
		Compatibility bool     `json:"compatibility,omitempty" doc:"Adds headers that receivers know which were written for Blockchain0x"`
	}
}

type hookWithSecretOutput struct{ Body WebhookWithSecret }

func createHook(ctx context.Context, x *exchange, in *createHookInput) (*hookWithSecretOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	e, secret, err := s.CreateEndpoint(ctx, webhooks.NewEndpoint{
		Live: live, URL: b.URL, Description: b.Description, Events: b.Events, Compatibility: b.Compatibility,
	})
	if err != nil {
		return nil, err
	}
	x.target = e.ID
	return &hookWithSecretOutput{WebhookWithSecret{viewHook(&e), &secret}}, nil
}

type hooksOutput struct {
	Body struct {
		Data []Webhook `json:"data"`
		Page Page      `json:"page"`
	}
}

func listHooks(ctx context.Context, x *exchange, in *PageInput) (*hooksOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	after, err := in.afterID()
	if err != nil {
		return nil, err
	}
	list, err := s.Endpoints(ctx, live, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := new(hooksOutput)
	out.Body.Data = []Webhook{}
	list, out.Body.Page = cutPage(list, in.Limit, func(e *webhooks.Endpoint) string { return e.ID })
	for i := range list {
		out.Body.Data = append(out.Body.Data, viewHook(&list[i]))
	}
	return out, nil
}

type hookInput struct {
	ID string `path:"id" maxLength:"128"`
}

type hookOutput struct{ Body Webhook }

// viewed is the answer with an endpoint.
func viewed(e webhooks.Endpoint, err error) (*hookOutput, error) {
	if err != nil {
		return nil, err
	}
	return &hookOutput{viewHook(&e)}, nil
}

func getHook(ctx context.Context, x *exchange, in *hookInput) (*hookOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	return viewed(s.Endpoint(ctx, live, in.ID))
}

type updateHookInput struct {
	ID   string `path:"id" maxLength:"128"`
	Body struct {
		URL           *string  `json:"url,omitempty" minLength:"1" maxLength:"2048"`
		Events        []string `json:"events,omitempty" maxItems:"50" doc:"An empty list: all"`
		Description   *string  `json:"description,omitempty" maxLength:"280"`
		Compatibility *bool    `json:"compatibility,omitempty"`
		Active        *bool    `json:"active,omitempty"`
	}
}

func updateHook(ctx context.Context, x *exchange, in *updateHookInput) (*hookOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	change := webhooks.EndpointChange{URL: b.URL, Description: b.Description, Compatibility: b.Compatibility, Active: b.Active}
	if b.Events != nil {
		change.Events = &b.Events
	}
	return viewed(s.UpdateEndpoint(ctx, live, in.ID, change))
}

func deleteHook(ctx context.Context, x *exchange, in *hookInput) (*struct{}, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	if err := s.DeleteEndpoint(ctx, live, in.ID); err != nil {
		return nil, err
	}
	return new(struct{}), nil
}

type rotateHookSecretInput struct {
	ID   string `path:"id" maxLength:"128"`
	Body *struct {
		OverlapSeconds *int64 `json:"overlapSeconds,omitempty" minimum:"0" maximum:"2592000" doc:"Default: 86400, a day"`
	} `required:"false"`
}

func rotateHookSecret(ctx context.Context, x *exchange, in *rotateHookSecretInput) (*hookWithSecretOutput, error) {
	s, live, err := x.hooks()
	if err != nil {
		return nil, err
	}
	overlap := webhooks.DefaultOverlap
	if in.Body != nil && in.Body.OverlapSeconds != nil {
		overlap = time.Duration(*in.Body.OverlapSeconds) * time.Second
	}
	e, secret, err := s.RotateSecret(ctx, live, in.ID, overlap)
	if err != nil {
		return nil, err
	}
	return &hookWithSecretOutput{WebhookWithSecret{viewHook(&e), &secret}}, nil
}
