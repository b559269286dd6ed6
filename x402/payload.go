package x402

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/holiman/uint256"
)

// MaxSignatureBytes caps what a contract wallet may call a signature: it is calldata that somebody pays for.
const MaxSignatureBytes = 4 << 10

// Payload is a payment header of either version. Nothing in it is trusted: Accepted and Network only
// select among our own requirements (Select).
type Payload struct {
	Version int // 1 or 2
	Scheme  string
	// Network is a CAIP-2 identifier in version 2 and a name, such as "base", in version 1.
	Network string
	// Accepted is what the client chose; nil in version 1.
	Accepted      *Requirements
	Authorization Authorization
	Signature     []byte
	// Resource is what the client says it pays for; it may be nil.
	Resource *ResourceInfo
	// Extensions are the echoes of ours and what the client added, by id.
	Extensions map[string]json.RawMessage
	// Raw is the decoded JSON, byte for byte, for whoever forwards it.
	Raw []byte
}

// DecodePayload reads the header of a payment, of either version. Unknown members are kept in Raw; of
// repeated ones the last counts, as in JavaScript. The error is an *Error: ReasonUndecodable for what is
// no payment header at all (400), otherwise the reason of the first check that it fails (402), in the
// order of the reference: version, scheme, network, payload, signature. The authorization of a Payload
// is whole and well-formed, its Signature is not empty and not ERC-6492.
func DecodePayload(header string) (*Payload, error) {
	raw, err := decodeBase64(header, MaxHeaderBytes)
	if err != nil {
		return nil, err
	}
	if !json.Valid(raw) || !isObject(raw) {
		return nil, Refuse(ReasonUndecodable, "the header is base64, but not of a JSON object")
	}
	return readPayload(raw)
}

// readPayload reads what is an object, in valid JSON.
func readPayload(raw []byte) (*Payload, error) {
	var m payloadMembers
	m.read(raw)
	p := &Payload{Raw: raw}
	var err error
	switch string(m.version) {
	case "1":
		err = p.readV1(&m)
	case "2":
		err = p.readV2(&m)
	default:
		err = Refuse(ReasonInvalidVersion, "x402Version is %.20q; this server speaks 1 and 2", string(m.version))
	}
	if err != nil {
		return nil, err
	}
	if err := p.readExact(m.payload); err != nil {
		return nil, err
	}
	return p, nil
}

// payloadMembers are the members of a payload of either version, unread.
type payloadMembers struct {
	version, scheme, network, accepted, payload, resource, extensions json.RawMessage
}

func (m *payloadMembers) read(raw []byte) {
	for key, value := range members(raw) {
		switch string(key) {
		case "x402Version":
			m.version = value
		case "scheme":
			m.scheme = value
		case "network":
			m.network = value
		case "accepted":
			m.accepted = value
		case "payload":
			m.payload = value
		case "resource":
			m.resource = value
		case "extensions":
			m.extensions = value
		}
	}
}

func (p *Payload) readV1(m *payloadMembers) error {
	var ok, ok2 bool
	p.Version = 1
	p.Scheme, ok = text(m.scheme)
	p.Network, ok2 = text(m.network)
	if !ok || !ok2 {
		return Refuse(ReasonUndecodable, "scheme or network is missing")
	}
	return p.refuseScheme()
}

func (p *Payload) readV2(m *payloadMembers) error {
	p.Version = 2
	accepted, err := parseRequirements(m.accepted)
	if err != nil {
		return &Error{Reason: ReasonUndecodable, Detail: "accepted is not one of the offer's requirements", Err: err}
	}
	p.Accepted, p.Scheme, p.Network = &accepted, accepted.Scheme, accepted.Network
	if !isNull(m.resource) {
		resource, err := parseResource(m.resource)
		if err != nil {
			return &Error{Reason: ReasonUndecodable, Detail: "resource is not what the offer says", Err: err}
		}
		p.Resource = &resource
	}
	if !isNull(m.extensions) {
		if !isObject(m.extensions) {
			return Refuse(ReasonUndecodable, "extensions is not an object")
		}
		p.Extensions = make(map[string]json.RawMessage, 1)
		for id, entry := range members(m.extensions) {
			p.Extensions[string(id)] = entry
		}
	}
	if err := p.refuseScheme(); err != nil {
		return err
	}
	if !strings.HasPrefix(p.Network, evmNamespace) {
		return Refuse(ReasonNetworkMismatch, "network %.40q is not offered; choose one of accepts", p.Network)
	}
	return nil
}

func (p *Payload) refuseScheme() error {
	if p.Scheme != SchemeExact {
		return Refuse(ReasonInvalidScheme, "scheme %.40q is not offered; only %q is", p.Scheme, SchemeExact)
	}
	return nil
}

// readExact reads the scheme's own part.
func (p *Payload) readExact(raw json.RawMessage) error {
	if !isObject(raw) {
		return Refuse(ReasonInvalidPayload, "payload is missing, or not an object")
	}
	var signature, authorization json.RawMessage
	for key, value := range members(raw) {
		switch string(key) {
		case "signature":
			signature = value
		case "authorization":
			authorization = value
		}
	}
	if s, ok := text(signature); isNull(signature) || (ok && (s == "" || s == "0x")) {
		return Refuse(ReasonMissingSignature, "payload.signature is missing; sign the authorization")
	}
	var err error
	if p.Authorization, err = parseAuthorization(authorization); err != nil {
		return err
	}
	p.Signature, err = parseSignature(signature)
	return err
}

func parseSignature(raw json.RawMessage) ([]byte, error) {
	s, ok := text(raw)
	if ok && len(s) > 2+2*MaxSignatureBytes {
		return nil, Refuse(ReasonSignatureFormat, "the signature is longer than %d bytes", MaxSignatureBytes)
	}
	digits, hasPrefix := strings.CutPrefix(s, "0x")
	sig, err := hex.DecodeString(digits)
	if !ok || !hasPrefix || err != nil {
		return nil, Refuse(ReasonSignatureFormat, "the signature is not a string of 0x and an even number of hex digits")
	}
	return sig, refuseUndeployed(sig)
}

// magic6492 ends the signature of a wallet that does not exist yet (ERC-6492).
var magic6492 = bytes.Repeat([]byte{0x64, 0x92}, 16)

// refuseUndeployed: judging an ERC-6492 signature means to call a contract of the payer's choice.
func refuseUndeployed(sig []byte) error {
	if bytes.HasSuffix(sig, magic6492) {
		return Refuse(ReasonUndeployedWallet, "the wallet is not deployed (ERC-6492); deploy it, then pay")
	}
	return nil
}

// parseAuthorization reads valid JSON.
func parseAuthorization(raw json.RawMessage) (a Authorization, err error) {
	if !isObject(raw) {
		return Authorization{}, Refuse(ReasonInvalidPayload, "payload.authorization is missing, or not an object")
	}
	var from, to, value, validAfter, validBefore, nonce json.RawMessage
	for key, member := range members(raw) {
		switch string(key) {
		case "from":
			from = member
		case "to":
			to = member
		case "value":
			value = member
		case "validAfter":
			validAfter = member
		case "validBefore":
			validBefore = member
		case "nonce":
			nonce = member
		}
	}
	err = firstError(
		readHex(a.From[:], from, "from"),
		readHex(a.To[:], to, "to"),
		readInteger(&a.Value, value, "value"),
		readInteger(&a.ValidAfter, validAfter, "validAfter"),
		readInteger(&a.ValidBefore, validBefore, "validBefore"),
		readHex(a.Nonce[:], nonce, "nonce"),
	)
	return a, err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// readHex fills dst with a string of 0x and exactly as many digits as dst takes.
func readHex(dst []byte, raw json.RawMessage, name string) error {
	s, ok := text(raw)
	digits, hasPrefix := strings.CutPrefix(s, "0x")
	if ok && hasPrefix && len(digits) == 2*len(dst) {
		if _, err := hex.Decode(dst, []byte(digits)); err == nil {
			return nil
		}
	}
	return Refuse(ReasonInvalidPayload, "payload.authorization.%s is not a string of 0x and %d hex digits", name, 2*len(dst))
}

func readInteger(dst *uint256.Int, raw json.RawMessage, name string) error {
	s, ok := text(raw)
	if !ok {
		return Refuse(ReasonInvalidPayload, "payload.authorization.%s is not a string of decimal digits", name)
	}
	v, err := ParseAtomic(s)
	if err != nil {
		return &Error{
			Reason: ReasonInvalidPayload,
			Detail: fmt.Sprintf("payload.authorization.%s is not an integer of at most 256 bits in plain decimal", name),
			Err:    err,
		}
	}
	*dst = v
	return nil
}

// parseRequirements reads valid JSON. A timeout that is no whole number is left zero: it is echoed, and
// nobody here believes it.
func parseRequirements(raw json.RawMessage) (Requirements, error) {
	if !isObject(raw) {
		return Requirements{}, errNotObject
	}
	r := Requirements{Raw: raw}
	var scheme, network, amount, asset, payTo json.RawMessage
	for key, value := range members(raw) {
		switch string(key) {
		case "scheme":
			scheme = value
		case "network":
			network = value
		case "amount":
			amount = value
		case "asset":
			asset = value
		case "payTo":
			payTo = value
		case "maxTimeoutSeconds":
			if n, err := strconv.Atoi(string(value)); err == nil {
				r.MaxTimeoutSeconds = n
			}
		case "extra":
			r.Extra = parseExtra(value)
		}
	}
	err := firstError(
		readText(&r.Scheme, scheme, "scheme"),
		readText(&r.Network, network, "network"),
		readText(&r.Amount, amount, "amount"),
		readText(&r.Asset, asset, "asset"),
		readText(&r.PayTo, payTo, "payTo"),
	)
	return r, err
}

func readText(dst *string, raw json.RawMessage, name string) error {
	s, ok := text(raw)
	if !ok {
		return fmt.Errorf("%s is not a string", name)
	}
	*dst = s
	return nil
}

// parseExtra takes the members that are known here, where they are what they should be.
func parseExtra(raw json.RawMessage) (e Extra) {
	if !isObject(raw) {
		return Extra{}
	}
	for key, value := range members(raw) {
		s, _ := text(value)
		switch string(key) {
		case "name":
			e.Name = s
		case "version":
			e.Version = s
		case "assetTransferMethod":
			e.AssetTransferMethod = s
		case "paymentFlow":
			e.PaymentFlow = s
		case "plan":
			e.Plan = s
		case "planRequests":
			e.PlanRequests, _ = strconv.ParseUint(string(value), 10, 64) // 0 for what is no number
		case "planCredit":
			e.PlanCredit = s
		}
	}
	return e
}
