package facilitator

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// envelope is the body of /verify and of /settle. Made once per payment and facilitator, it is the same in every call.
//
// The payload is the payer's, byte for byte. Only where the facilitator does not speak the version that the payer speaks,
// a payload of the other version is made of the same authorization and signature: that is all that is signed.
func envelope(in settlement.Intent, versions versions) ([]byte, error) {
	x := in.Exchange
	version, payload := x.Version, []byte(x.Payload)
	requirements := x.Requirements
	v1, hasV1 := requirements.V1(x.Resource)
	exact := x402.ExactPayload{Signature: in.Signature, Authorization: in.Authorization}
	var err error
	switch {
	case versions.speaks(version) && (version != 1 || hasV1):
	case versions.speaks(2):
		version = 2
		payload, err = encode(x402.PayloadV2{X402Version: 2, Resource: &x.Resource, Accepted: requirements, Payload: exact})
	case versions.speaks(1) && hasV1:
		version = 1
		payload, err = encode(x402.PayloadV1{X402Version: 1, Scheme: v1.Scheme, Network: v1.Network, Payload: exact})
	default:
		return nil, fmt.Errorf("it does not settle payments of version %d on %s", version, in.Network.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the payload: %w", err)
	}
	var ours []byte
	if version == 1 {
		ours, err = encode(v1)
	} else {
		ours, err = encode(requirements)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the requirements: %w", err)
	}
	return fmt.Appendf(nil, `{"x402Version":%d,"paymentPayload":%s,"paymentRequirements":%s}`, version, payload, ours), nil
}

// encode is json.Marshal without escapes for HTML, as offers are written.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
