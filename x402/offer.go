package x402

import "encoding/json"

// Offer is a 402 for clients of both versions: Required goes into the header, V1 into the body.
// An OfferTemplate makes the same bytes with less work.
type Offer struct {
	Required PaymentRequired
	V1       RequiredV1
}

// NewOffer offers accepts, the price of the request first and then plans by rising price. The version 1
// part has what version 1 can say of it. extensions are further ones beside that for resumeKey; an empty
// resumeKey leaves that out.
func NewOffer(accepts []Requirements, resource ResourceInfo, extensions map[string]json.RawMessage, errorText, resumeKey string) Offer {
	o := Offer{
		Required: PaymentRequired{X402Version: 2, Error: errorText, Resource: resource, Accepts: accepts},
		V1:       RequiredV1{X402Version: 1, Error: errorText, Accepts: acceptsV1(accepts, resource)},
	}
	if len(extensions) > 0 || resumeKey != "" {
		o.Required.Extensions = make(map[string]json.RawMessage, len(extensions)+1)
		for id, entry := range extensions {
			if id != ExtensionResume {
				o.Required.Extensions[id] = entry
			}
		}
	}
	if resumeKey != "" {
		o.Required.Extensions[ExtensionResume] = ResumeExtension(resumeKey)
	}
	return o
}

// acceptsV1 is never nil: null would make version 1 clients throw. A network is listed once.
func acceptsV1(accepts []Requirements, resource ResourceInfo) []RequirementsV1 {
	list := make([]RequirementsV1, 0, len(accepts))
	seen := make(map[string]bool, len(accepts))
	for i := range accepts {
		r := &accepts[i]
		if v1, ok := r.V1(resource); ok && !seen[r.Network] {
			list = append(list, v1)
			seen[r.Network] = true
		}
	}
	return list
}

// Header is the value of HeaderRequired.
func (o *Offer) Header() (string, error) { return EncodeHeader(o.Required) }

// Body is the JSON body for clients of version 1.
func (o *Offer) Body() ([]byte, error) { return json.Marshal(o.V1) }
