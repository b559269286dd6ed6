package x402

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/holiman/uint256"
)

// Headers of both versions. Names are written as Go's net/http canonicalises them.
const (
	HeaderRequired    = "Payment-Required"   // v2, with the 402: PaymentRequired
	HeaderSignature   = "Payment-Signature"  // v2, with the request: PayloadV2
	HeaderResponse    = "Payment-Response"   // v2, with the answer: SettlementResponse
	HeaderPaymentV1   = "X-Payment"          // v1, with the request: PayloadV1
	HeaderResponseV1  = "X-Payment-Response" // v1, with the answer: SettlementResponse
	SchemeExact       = "exact"              // the one scheme that is spoken here
	FlowUpfront       = "upfront"            // Extra.PaymentFlow where settling comes first
	FlowAuthorization = "authorization"      // the default flow, which is left out on the wire
)

// PaymentRequired is what a 402 offers, version 2 (x402 specification, PaymentRequired).
type PaymentRequired struct {
	X402Version int `json:"x402Version"`
	// Error says why this is a 402: a code, or a text.
	Error    string         `json:"error,omitempty"`
	Resource ResourceInfo   `json:"resource"`
	Accepts  []Requirements `json:"accepts"`
	// Extensions are kept as they are, by id; each is an Extension.
	Extensions map[string]json.RawMessage `json:"extensions,omitempty"`
}

// ResourceInfo says what is paid for.
type ResourceInfo struct {
	// URL is absolute and public.
	URL         string   `json:"url"`
	Description string   `json:"description,omitempty"`
	MimeType    string   `json:"mimeType,omitempty"`
	ServiceName string   `json:"serviceName,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	IconURL     string   `json:"iconUrl,omitempty"`
	// Raw is the object as it was decoded, unknown members and all. If set, it is what is encoded, so
	// that an echo says what was said; clear it after a change.
	Raw json.RawMessage `json:"-"`
}

// Requirements is one way to pay, version 2.
type Requirements struct {
	Scheme string `json:"scheme"`
	// Network is a CAIP-2 identifier.
	Network string `json:"network"`
	// Amount is in atomic units of the asset.
	Amount            string `json:"amount"`
	Asset             string `json:"asset"`
	PayTo             string `json:"payTo"`
	MaxTimeoutSeconds int    `json:"maxTimeoutSeconds"`
	Extra             Extra  `json:"extra,omitzero"`
	// Raw is the object as it was decoded, unknown members and all. If set, it is what is encoded, so
	// that an echo says what was said; clear it after a change.
	Raw json.RawMessage `json:"-"`
}

// Extra holds the members of Requirements.Extra that are known here.
type Extra struct {
	// Name and Version are of the asset's EIP-712 domain.
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	// AssetTransferMethod is empty for EIP-3009.
	AssetTransferMethod string `json:"assetTransferMethod,omitempty"`
	// PaymentFlow is empty for FlowAuthorization.
	PaymentFlow string `json:"paymentFlow,omitempty"`
	// Plan is the name of the plan that is bought; empty for the price of one request.
	Plan string `json:"plan,omitempty"`
	// PlanRequests is how many requests that plan opens, PlanCredit how many atomic units of the asset requests may draw down by
	// their prices; empty where they are not counted.
	PlanRequests uint64 `json:"planRequests,omitempty"`
	PlanCredit   string `json:"planCredit,omitempty"`
}

// NewRequirements makes one way to pay: amount atomic units of n's asset to payTo. maxTimeout is how long
// an authorization shall be good, in whole seconds. flow is announced only where it is FlowUpfront; plan
// is empty for the price of one request.
func NewRequirements(n Network, payTo common.Address, amount *uint256.Int, maxTimeout time.Duration, flow, plan string) Requirements {
	extra := Extra{Name: n.Asset.Name, Version: n.Asset.Version, Plan: plan}
	if flow == FlowUpfront {
		extra.PaymentFlow = FlowUpfront
	}
	return Requirements{
		Scheme:            SchemeExact,
		Network:           n.ID,
		Amount:            amount.Dec(),
		Asset:             n.Asset.Address.Hex(),
		PayTo:             payTo.Hex(),
		MaxTimeoutSeconds: int(maxTimeout / time.Second),
		Extra:             extra,
	}
}

// V1 is r as version 1 has it; false where version 1 has no name for the network, or r sells a plan.
func (r *Requirements) V1(resource ResourceInfo) (RequirementsV1, bool) {
	chainID, err := ParseCAIP2(r.Network)
	if err != nil || r.Extra.Plan != "" || V1Name(chainID) == "" {
		return RequirementsV1{}, false
	}
	return RequirementsV1{
		Scheme:            r.Scheme,
		Network:           V1Name(chainID),
		MaxAmountRequired: r.Amount,
		Resource:          resource.URL,
		Description:       resource.Description,
		MimeType:          resource.MimeType,
		PayTo:             r.PayTo,
		MaxTimeoutSeconds: r.MaxTimeoutSeconds,
		Asset:             r.Asset,
		Extra:             &ExtraV1{Name: r.Extra.Name, Version: r.Extra.Version},
	}, true
}

// Extension is an entry of the extensions: what is said, and the JSON Schema of what may be answered.
type Extension struct {
	Info   json.RawMessage `json:"info"`
	Schema json.RawMessage `json:"schema,omitempty"`
}

// SettlementResponse tells the client what became of its payment, in both versions (Network is then
// the version's own name of it).
type SettlementResponse struct {
	Success      bool   `json:"success"`
	ErrorReason  Reason `json:"errorReason,omitempty"`
	ErrorMessage string `json:"errorMessage,omitempty"`
	Payer        string `json:"payer,omitempty"`
	// Transaction is empty when nothing went on chain.
	Transaction string                     `json:"transaction"`
	Network     string                     `json:"network"`
	Amount      string                     `json:"amount,omitempty"`
	Extensions  map[string]json.RawMessage `json:"extensions,omitempty"`
	Extra       json.RawMessage            `json:"extra,omitempty"`
}

// ExactPayload is the scheme's part of a payment header: an EIP-3009 authorization and its signature.
type ExactPayload struct {
	Signature     hexutil.Bytes `json:"signature"`
	Authorization Authorization `json:"authorization"`
}

// PayloadV2 is what a client sends in HeaderSignature.
type PayloadV2 struct {
	X402Version int                        `json:"x402Version"`
	Resource    *ResourceInfo              `json:"resource,omitempty"`
	Accepted    Requirements               `json:"accepted"`
	Payload     ExactPayload               `json:"payload"`
	Extensions  map[string]json.RawMessage `json:"extensions,omitempty"`
}

// Pay is the answer to the offer with the choice accepted, which is one of Accepts: it echoes the
// resource and the extensions, as servers expect.
func (p *PaymentRequired) Pay(accepted Requirements, a *Authorization, sig []byte) PayloadV2 {
	return PayloadV2{
		X402Version: 2,
		Resource:    &p.Resource,
		Accepted:    accepted,
		Payload:     ExactPayload{Signature: sig, Authorization: *a},
		Extensions:  p.Extensions,
	}
}

// MarshalJSON gives Raw, if there is one.
func (r ResourceInfo) MarshalJSON() ([]byte, error) {
	if r.Raw != nil {
		return r.Raw, nil
	}
	type plain ResourceInfo
	return marshal(plain(r))
}

// UnmarshalJSON keeps the object in Raw. Members of the wrong type are errors, null is as good as absent.
func (r *ResourceInfo) UnmarshalJSON(raw []byte) (err error) {
	*r, err = parseResource(bytes.Clone(raw))
	return err
}

// MarshalJSON gives Raw, if there is one.
func (r Requirements) MarshalJSON() ([]byte, error) {
	if r.Raw != nil {
		return r.Raw, nil
	}
	type plain Requirements
	return marshal(plain(r))
}

// UnmarshalJSON keeps the object in Raw. Members of the wrong type are errors.
func (r *Requirements) UnmarshalJSON(raw []byte) (err error) {
	*r, err = parseRequirements(bytes.Clone(raw))
	return err
}

// wireAuthorization is an Authorization on the wire: strings, its numbers in decimal.
type wireAuthorization struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Value       string `json:"value"`
	ValidAfter  string `json:"validAfter"`
	ValidBefore string `json:"validBefore"`
	Nonce       string `json:"nonce"`
}

// MarshalJSON writes a as the wire has it, the numbers as decimal strings.
func (a Authorization) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireAuthorization{
		From: a.From.Hex(), To: a.To.Hex(), Value: a.Value.Dec(), ValidAfter: a.ValidAfter.Dec(),
		ValidBefore: a.ValidBefore.Dec(), Nonce: a.Nonce.Hex(),
	})
}

// UnmarshalJSON reads the wire's form; the error is an *Error with ReasonInvalidPayload.
func (a *Authorization) UnmarshalJSON(raw []byte) (err error) {
	*a, err = parseAuthorization(raw)
	return err
}

var errNotObject = errors.New("not an object")

func parseResource(raw json.RawMessage) (ResourceInfo, error) {
	if !isObject(raw) {
		return ResourceInfo{}, errNotObject
	}
	r := ResourceInfo{Raw: raw}
	for key, value := range members(raw) {
		var dst any
		switch string(key) {
		case "url":
			dst = &r.URL
		case "description":
			dst = &r.Description
		case "mimeType":
			dst = &r.MimeType
		case "serviceName":
			dst = &r.ServiceName
		case "tags":
			dst = &r.Tags
		case "iconUrl":
			dst = &r.IconURL
		default:
			continue
		}
		if err := assign(dst, value); err != nil {
			return ResourceInfo{}, err
		}
	}
	return r, nil
}

// assign sets a *string fast and everything else with encoding/json; null empties it.
func assign(dst any, value json.RawMessage) error {
	s, isString := dst.(*string)
	switch {
	case isString && isNull(value):
		*s = ""
		return nil
	case isString:
		v, ok := text(value)
		if !ok {
			return errors.New("not a string")
		}
		*s = v
		return nil
	}
	return json.Unmarshal(value, dst)
}
