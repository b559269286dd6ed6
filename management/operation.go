package management

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// rule is what the API asks of the requests to an operation.
type rule struct {
	id     string
	method string
	scope  apikey.Scope
	// keyRequired: an Idempotency-Key must be there.
	keyRequired bool
}

func (ru *rule) changes() bool {
	return ru.method != http.MethodGet && ru.method != http.MethodHead
}

const (
	ruleKey        = "x402"
	securityScheme = "apiKey"
	maxBody        = 64 << 10
)

// operation describes one for the document.
type operation struct {
	rule
	path, tag, summary, description string
	status                          int
}

const apiDescription = `Looks after what was sold: payments, refunds, tokens, wallets and API keys.

Send ` + "`Authorization: Bearer sk_…`" + ` and ` + "`X-Network: mainnet`" + ` or ` + "`testnet`" + `, which must be that of the key. Send an
` + "`Idempotency-Key`" + ` with everything that changes something. Errors are ` + "`{\"error\":{\"code\",\"message\",\"requestId\"}}`" + `, or problem
details (RFC 9457) where ` + "`Accept: application/problem+json`" + ` asks for them.`

// add puts an operation into the API.
func add[I, O any](a *API, o operation, handler func(context.Context, *exchange, *I) (*O, error)) {
	ru := o.rule
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: o.path, Tags: []string{o.tag}, Summary: o.summary, Description: o.description,
		DefaultStatus: o.status, MaxBodyBytes: maxBody, Metadata: map[string]any{ruleKey: &ru},
		Security:   a.security(),
		Extensions: map[string]any{"x-x402-scope": string(o.scope)},
		Parameters: []*huma.Param{{
			Name: headerNetwork, In: "header", Required: !a.local, Description: "Which network this is about: that of the key",
			Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{Mainnet, Testnet}},
		}},
		Responses: map[string]*huma.Response{"default": a.errorResponse()},
	}
	if ru.changes() {
		most := maxIdempotencyKey
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: headerIdempotency, In: "header", Required: o.keyRequired,
			Description: "The same key makes the same call happen once, and gives its answer again for a day",
			Schema:      &huma.Schema{Type: huma.TypeString, MaxLength: &most},
		})
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		x := exchangeOf(ctx)
		if x == nil {
			return nil, told(http.StatusInternalServerError, CodeUnhandled, "the operation was not admitted", nil)
		}
		out, err := handler(ctx, x, in)
		if err != nil {
			return nil, asError(err)
		}
		return out, nil
	})
}

func (a *API) security() []map[string][]string {
	if a.local {
		return nil
	}
	return []map[string][]string{{securityScheme: {}}}
}

func (a *API) errorResponse() *huma.Response {
	schemas := a.huma.OpenAPI().Components.Schemas
	return &huma.Response{Description: "An error", Content: map[string]*huma.MediaType{
		jsonType:    {Schema: schemas.Schema(reflect.TypeFor[Envelope](), true, "")},
		problemType: {Schema: schemas.Schema(reflect.TypeFor[Problem](), true, "")},
	}}
}
