package x402

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// Order is what a server asks of a facilitator: the body of POST /verify and of POST /settle (x402 specification, section 7). The
// payload is its client's, the requirements are its own.
type Order struct {
	// Version of the protocol in which it was asked: 1 or 2.
	Version int
	Payload *Payload
	// Requirements are in the words of version 2, but for the network, which is named as in Version.
	Requirements Requirements
	// PayTo, Asset and Amount are those of Requirements.
	PayTo, Asset common.Address
	Amount       uint256.Int
	// Resource is the address of what is paid for, if it is said.
	Resource string
	// Hash tells this order from all others: it is equal for the same payload and the same requirements, written alike.
	Hash common.Hash
}

// VerifyResponse answers POST /verify, in both versions.
type VerifyResponse struct {
	IsValid        bool   `json:"isValid"`
	InvalidReason  Reason `json:"invalidReason,omitempty"`
	InvalidMessage string `json:"invalidMessage,omitempty"`
	Payer          string `json:"payer,omitempty"`
}

// SupportedResponse answers GET /supported.
type SupportedResponse struct {
	Kinds []SupportedKind `json:"kinds"`
	// Extensions are the ids of those that the facilitator knows.
	Extensions []string `json:"extensions"`
	// Signers are the addresses that make the transactions, by a pattern of networks such as eip155:*.
	Signers map[string][]string `json:"signers"`
}

// SupportedKind is one way to pay that a facilitator settles.
type SupportedKind struct {
	X402Version int    `json:"x402Version"`
	Scheme      string `json:"scheme"`
	// Network is named as in X402Version.
	Network string `json:"network"`
}

// SignersEVM is the pattern of all EVM chains in SupportedResponse.Signers.
const SignersEVM = evmNamespace + "*"

// NewSupported lists the scheme exact on networks, in both versions where both have a name for it.
func NewSupported(networks []Network, signers []common.Address) SupportedResponse {
	s := SupportedResponse{Kinds: []SupportedKind{}, Extensions: []string{}, Signers: map[string][]string{SignersEVM: {}}}
	add := func(k SupportedKind) {
		if !slices.Contains(s.Kinds, k) { // two assets may be on one network
			s.Kinds = append(s.Kinds, k)
		}
	}
	for _, n := range networks {
		add(SupportedKind{X402Version: 2, Scheme: SchemeExact, Network: n.ID})
		if n.V1Name != "" {
			add(SupportedKind{X402Version: 1, Scheme: SchemeExact, Network: n.V1Name})
		}
	}
	for _, a := range signers {
		s.Signers[SignersEVM] = append(s.Signers[SignersEVM], a.Hex())
	}
	return s
}

// ParseOrder reads the body of a request to a facilitator. malformed: it is none at all, which is answered with 400; otherwise the
// error is an *Error with the reason of a verdict, and payer is who wants to pay, if that can be read.
func ParseOrder(body []byte) (o *Order, payer *common.Address, malformed bool, err error) {
	if !json.Valid(body) || !isObject(body) {
		return nil, nil, true, Refuse(ReasonUndecodable, "the body is no JSON object")
	}
	var version, payload, requirements json.RawMessage
	for key, value := range members(body) {
		switch string(key) {
		case "x402Version":
			version = value
		case "paymentPayload":
			payload = value
		case "paymentRequirements":
			requirements = value
		}
	}
	if !isObject(payload) || !isObject(requirements) {
		return nil, nil, true, Refuse(ReasonUndecodable, "Missing paymentPayload or paymentRequirements")
	}
	o = &Order{Hash: orderHash(payload, requirements)}
	if o.Payload, err = readPayload(payload); err != nil {
		return nil, payerOf(payload), false, err
	}
	o.Version = o.Payload.Version
	payer = &o.Payload.Authorization.From
	if said := string(version); !isNull(version) && (said != "1" || o.Version != 1) && (said != "2" || o.Version != 2) {
		return nil, payer, false, Refuse(ReasonInvalidVersion, "x402Version is %.20q, and that of the payload is %d", said, o.Version)
	}
	if err := o.readRequirements(requirements); err != nil {
		return nil, payer, false, err
	}
	return o, payer, false, nil
}

// payerOf is who signed a payload that is wrong elsewhere, for the answer.
func payerOf(payload json.RawMessage) *common.Address {
	at := payload
	for _, name := range []string{"payload", "authorization", "from"} {
		var found json.RawMessage
		for key, value := range members(at) {
			if string(key) == name {
				found = value
			}
		}
		if at = found; name != "from" && !isObject(at) {
			return nil
		}
	}
	var from common.Address
	if readHex(from[:], at, "from") != nil {
		return nil
	}
	return &from
}

func (o *Order) readRequirements(raw json.RawMessage) error {
	amount, resource := "amount", json.RawMessage(nil)
	if o.Version == 1 {
		amount = "maxAmountRequired"
	}
	r := &o.Requirements
	r.Raw = raw
	var scheme, network, value, asset, payTo json.RawMessage
	for key, member := range members(raw) {
		switch string(key) {
		case "scheme":
			scheme = member
		case "network":
			network = member
		case amount:
			value = member
		case "asset":
			asset = member
		case "payTo":
			payTo = member
		case "extra":
			r.Extra = parseExtra(member)
		case "resource":
			resource = member
		}
	}
	err := firstError(
		readText(&r.Scheme, scheme, "scheme"), readText(&r.Network, network, "network"), readText(&r.Amount, value, amount),
		readText(&r.Asset, asset, "asset"), readText(&r.PayTo, payTo, "payTo"),
	)
	if err != nil {
		return &Error{Reason: ReasonInvalidRequirements, Detail: "paymentRequirements: " + err.Error(), Err: err}
	}
	if r.Scheme != SchemeExact {
		return Refuse(ReasonUnsupportedScheme, "scheme %.40q is not settled here; only %q is", r.Scheme, SchemeExact)
	}
	if o.Amount, err = ParseAtomic(r.Amount); err != nil {
		return Refuse(ReasonInvalidRequirements, "paymentRequirements: %s is no whole number of atomic units", amount)
	}
	if readHex(o.Asset[:], asset, "asset") != nil || readHex(o.PayTo[:], payTo, "payTo") != nil {
		return Refuse(ReasonInvalidRequirements, "paymentRequirements: asset or payTo is not an address")
	}
	if m := r.Extra.AssetTransferMethod; m != "" && !strings.EqualFold(m, "eip3009") {
		return Refuse(ReasonPayloadType, "assetTransferMethod %.20q is not settled here; only eip3009 is", m)
	}
	if r.Extra.Name == "" || r.Extra.Version == "" {
		return Refuse(ReasonMissingDomain, "paymentRequirements.extra must have the name and the version of the token's EIP-712 domain")
	}
	o.Resource, _ = text(resource)
	if o.Version == 2 && o.Payload.Resource != nil {
		o.Resource = o.Payload.Resource.URL
	}
	return nil
}

// On reports whether o is for n: its chain, and its asset.
func (o *Order) On(n Network) bool {
	name := o.Payload.networkName(n)
	return name != "" && o.Requirements.Network == name && o.Asset == n.Asset.Address
}

// Verify judges the order's payload by its requirements, for the network n, which it is On: see Payload.Verify. least and most of t
// are n's and its server's; its amount and payee are the order's.
func (o *Order) Verify(t Terms, s Signer, now time.Time) (needsChain bool, err error) {
	asset := &t.Network.Asset
	switch extra := &o.Requirements.Extra; {
	case extra.Name != asset.Name:
		return false, Refuse(ReasonTokenNameMismatch, "the token's name is %q, paymentRequirements.extra.name is %.40q", asset.Name, extra.Name)
	case extra.Version != asset.Version:
		return false, Refuse(ReasonTokenVersionMismatch, "the token's version is %q, paymentRequirements.extra.version is %.40q",
			asset.Version, extra.Version)
	}
	t.PayTo, t.Amount = o.PayTo, o.Amount
	needsChain, err = o.Payload.Verify(t, s, now)
	if e, ok := errors.AsType[*Error](err); ok && e.Reason == ReasonValueMismatch && o.Version == 1 {
		e.Reason = ReasonAuthorizationValue
	}
	return needsChain, err
}

// orderHash is that of what was asked, whatever white space is in it.
func orderHash(payload, requirements json.RawMessage) common.Hash {
	var b bytes.Buffer
	b.WriteString("x402 order\n")
	for _, raw := range []json.RawMessage{payload, requirements} {
		if json.Compact(&b, raw) != nil { // both are valid
			return common.Hash{}
		}
		b.WriteByte('\n')
	}
	return sha256.Sum256(b.Bytes())
}
