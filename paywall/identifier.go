package paywall

import (
	"encoding/json"
	"errors"

	"github.com/caddy-x402/caddy-x402/x402"
)

// extensionIdentifier is the id of the extension of x402 by which clients say that two payments are for the same request
// (x402 specification, extensions/payment_identifier).
const extensionIdentifier = "payment-identifier"

// The bounds of an identifier.
const (
	minIdentifier = 16
	maxIdentifier = 128
)

// identifierSchema is that of the specification, with the pattern that its reference implementation adds.
const identifierSchema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{` +
	`"required":{"type":"boolean"},"id":{"type":"string","minLength":16,"maxLength":128,"pattern":"^[a-zA-Z0-9_-]+$"}},` +
	`"required":["required"]}`

// identifierExtension announces the extension in an offer.
func identifierExtension(required bool) json.RawMessage {
	info := `{"info":{"required":false},"schema":`
	if required {
		info = `{"info":{"required":true},"schema":`
	}
	return json.RawMessage(info + identifierSchema + `}`)
}

var (
	errIdentifierShape = errors.New("the extension payment-identifier must echo info.required as the offer has it")
	errIdentifierForm  = errors.New("info.id of the extension payment-identifier must be 16 to 128 letters, digits, hyphens and underscores")
)

// identifier reads what a payment says; "" if the client gave none, which an echo of the offer alone does not.
func identifier(p *x402.Payload) (string, error) {
	entry := p.Extensions[extensionIdentifier]
	if absent(entry) {
		return "", nil
	}
	// Maps, since structs take member names in any case.
	var extension, info map[string]json.RawMessage
	if json.Unmarshal(entry, &extension) != nil || json.Unmarshal(extension["info"], &info) != nil {
		return "", errIdentifierShape
	}
	if r := string(info["required"]); r != "true" && r != "false" {
		return "", errIdentifierShape
	}
	if _, ok := info["id"]; !ok {
		return "", nil
	}
	var id *string
	if err := json.Unmarshal(info["id"], &id); err != nil || id == nil || !validIdentifier(*id) {
		return "", errIdentifierForm
	}
	return *id, nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func validIdentifier(id string) bool {
	if len(id) < minIdentifier || len(id) > maxIdentifier {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
