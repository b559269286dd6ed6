package management

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// The page for people is made of the same description as the document for programs. It needs no script, and nothing from elsewhere.
var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pageTemplate  = template.Must(template.New("page").Parse(pageText))
	pageStyleHash = styleHash(pageStyle)
)

func styleHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

type pageGroup struct {
	Name       string
	Operations []pageOperation
}

type pageOperation struct {
	ID, Method, Path, Summary, Description, Scope string
	Parameters                                    []pageField
	Body                                          []pageField
	Status                                        string
	Answer                                        []pageField
}

type pageField struct {
	Name, In, Type, Doc string
	Required            bool
}

// renderPage makes the page of an API whose paths begin with prefix.
func renderPage(api *huma.OpenAPI, prefix string) ([]byte, error) {
	var groups []pageGroup
	for _, path := range slices.Sorted(maps.Keys(api.Paths)) {
		for _, op := range pathOperations(api.Paths[path]) {
			i := slices.IndexFunc(groups, func(g pageGroup) bool { return g.Name == op.Tags[0] })
			if i < 0 {
				i, groups = len(groups), append(groups, pageGroup{Name: op.Tags[0]})
			}
			groups[i].Operations = append(groups[i].Operations, describe(api, op, prefix+path))
		}
	}
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, map[string]any{
		"Title": api.Info.Title, "Style": template.CSS(pageStyle), //nolint:gosec // it is a file of ours
		"Groups": groups, "Codes": codeRows(), "Spec": prefix + pathSpec, "SpecYAML": prefix + pathSpecYAML,
	})
	if err != nil {
		return nil, fmt.Errorf("management: rendering the page: %w", err)
	}
	return b.Bytes(), nil
}

func pathOperations(p *huma.PathItem) []*huma.Operation {
	return slices.DeleteFunc([]*huma.Operation{p.Get, p.Post, p.Put, p.Patch, p.Delete}, func(op *huma.Operation) bool { return op == nil })
}

func describe(api *huma.OpenAPI, op *huma.Operation, path string) pageOperation {
	out := pageOperation{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, Description: op.Description}
	out.Scope, _ = op.Extensions["x-x402-scope"].(string)
	for _, p := range op.Parameters {
		if p.Name != headerNetwork { // said once, above
			out.Parameters = append(out.Parameters, pageField{p.Name, p.In, typeName(p.Schema), cmp.Or(p.Description, p.Schema.Description), p.Required})
		}
	}
	if op.RequestBody != nil {
		out.Body = fields(api, op.RequestBody.Content)
	}
	for status, r := range op.Responses {
		if strings.HasPrefix(status, "2") {
			out.Status, out.Answer = status, fields(api, r.Content)
		}
	}
	return out
}

// fields are those of the object in a body.
func fields(api *huma.OpenAPI, content map[string]*huma.MediaType) []pageField {
	m := content[jsonType]
	if m == nil || m.Schema == nil {
		return nil
	}
	s := m.Schema
	if s.Ref != "" {
		s = api.Components.Schemas.SchemaFromRef(s.Ref)
	}
	var out []pageField
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		out = append(out, pageField{Name: name, Type: typeName(s.Properties[name]), Doc: s.Properties[name].Description, Required: slices.Contains(s.Required, name)})
	}
	return out
}

func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	case s.Type == huma.TypeArray:
		return "list of " + typeName(s.Items)
	case len(s.Enum) > 0:
		return strings.Trim(fmt.Sprint(s.Enum), "[]")
	case s.Format != "":
		return s.Format
	}
	return s.Type
}

// codeRow explains a code.
type codeRow struct {
	Status  int
	Code    string
	Meaning string
}

// codeRows are all codes, in the order in which they are judged.
func codeRows() []codeRow {
	return []codeRow{
		{403, CodeCrossOrigin, "Another site's page sent it, by a browser."},
		{401, CodeMissingToken, "There is no Authorization: Bearer."},
		{401, CodeKeyInvalid, "It is no API key, or there is none like it."},
		{401, CodeKeyExpired, "The key has expired, or the overlap after its rotation has ended."},
		{401, CodeKeyRevoked, "The key was revoked."},
		{429, CodeRateLimit, "Too many calls came with this key or from this address, or too many keys that are none; see Retry-After."},
		{400, CodeNetworkRequired, "X-Network is missing."},
		{400, CodeNetworkInvalid, "X-Network is neither mainnet nor testnet."},
		{401, CodeKeyMismatch, "X-Network is not the network of the key."},
		{403, CodeNetworkLocked, "This instance serves the other network alone."},
		{403, CodeKeyScope, "The key does not have the scope of the operation."},
		{403, CodeKeyGrant, "A key can't give what it does not have."},
		{400, CodeIdempotencyRequired, "The operation needs an Idempotency-Key."},
		{400, CodeIdempotencyInvalid, "The Idempotency-Key is not 1 to 255 printable characters."},
		{422, CodeIdempotencyConflict, "The Idempotency-Key was used for another request."},
		{409, CodeIdempotencyUnderWay, "A call with the Idempotency-Key is under way; see Retry-After."},
		{409, CodeIdempotencyNotStored, "The call was made; its answer was too long to be kept."},
		{404, CodeNotFound, "There is nothing at this path."},
		{405, CodeMethod, "The path is for another method; see Allow."},
		{413, CodeTooLarge, "The body is too large."},
		{415, CodeMediaType, "The body is not application/json."},
		{400, CodeRequest, "The request is not well formed; details say where."},
		{400, webhooks.CodeURLInvalid, "The endpoint's URL can't be told anything."},
		{400, webhooks.CodeEventsInvalid, "There is no such event to be told of."},
		{400, webhooks.CodeTextInvalid, "The endpoint's description is too long, or no text."},
		{400, webhooks.CodeOverlapInvalid, "The old secret can't sign on for so long."},
		{400, webhooks.CodeQueryInvalid, "Deliveries can't be listed like that."},
		{404, CodePaymentNotFound, "There is no such payment on this network."},
		{404, CodeKeyNotFound, "There is no such API key on this network."},
		{404, webhooks.CodeNotFound, "There is no such endpoint of webhooks on this network."},
		{404, webhooks.CodeDeliveryNotFound, "The endpoint has no such delivery."},
		{404, CodeTokenKeyNotFound, "There is no such key of tokens."},
		{404, CodeTokenKeysMissing, "There are no keys of tokens."},
		{404, CodeNoFeed, "There is no feed of events."},
		{404, CodeAnchorNotFound, "The ledger has no such anchor."},
		{403, CodeMainnetNeeded, "It is about all networks, and the key is for test networks."},
		{409, CodeNotSettleable, "The settlement of the payment is known."},
		{409, CodeNotRefundable, "The payment was delivered, or is not paid."},
		{409, CodeNotFailed, "The refund has not failed."},
		{409, CodeNoPlan, "The payment bought no plan."},
		{409, CodePlanOver, "The plan has ended."},
		{409, CodeKeyRotating, "The key was rotated already."},
		{410, CodeKeyExpired, "The key that is to be rotated has expired."},
		{410, CodeKeyRevoked, "The key that is to be rotated was revoked."},
		{409, CodeHooksOff, "The configuration has no webhooks."},
		{409, webhooks.CodeConfigured, "The endpoint stands in the configuration."},
		{409, webhooks.CodeDisabled, "The endpoint is not active."},
		{409, webhooks.CodeUnderWay, "The delivery is being attempted just now."},
		{409, webhooks.CodeTooMany, "There are as many endpoints as may be."},
		{409, CodeTokenKeyWaiting, "A new key of tokens waits for its turn already."},
		{409, CodeTokenKeySigns, "The key of tokens signs, so it can't be retired."},
		{409, CodeTokenKeyCost, "Tokens that were sold would stop working; it must be forced."},
		{409, CodeTokenKeyConfigured, "The keys of tokens stand in the configuration."},
		{409, CodeConflict, "It keeps changing; try again."},
		{409, webhooks.CodeChanging, "The endpoint keeps changing; try again."},
		{409, CodeIncomplete, "A copy into the ledger was begun and is not complete."},
		{409, CodeBroken, "The ledger's audit trail does not hold."},
		{409, CodeAuditUnderWay, "The ledger is being read for somebody already; see Retry-After."},
		{503, webhooks.CodeKeyMissing, "The key that seals secrets can't be had now; see Retry-After."},
		{503, CodeTokenKeysAway, "The keys of tokens can't be had now; see Retry-After."},
		{503, CodeBusy, "Too many such calls are answered just now; see Retry-After."},
		{503, CodeTooMany, "Too many listen to events already; see Retry-After."},
		{503, CodeUnavailable, "The ledger can't be reached; see Retry-After."},
		{500, CodeUnhandled, "Something went wrong here; it was logged under the request's id."},
	}
}
