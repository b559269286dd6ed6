package paywall

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Idempotency is what a gate makes of keys by which clients say that two requests are one: the extension
// payment-identifier of x402, and the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header). The payer, proven by
// its signature, and its key together find the payment and the answer; the key alone finds nothing.
type Idempotency struct {
	Mode IdempotencyMode
	// TTL is how long a key, and the answer to its request, are remembered. Default: 24 h.
	TTL time.Duration
	// MaxAnswer is how long the body of an answer may be to be stored, in bytes. Default: 1 MiB.
	MaxAnswer int
}

// IdempotencyMode says whether keys are heeded.
type IdempotencyMode string

// The modes. Where a key is required, one of either kind will do.
const (
	IdempotencyOff      IdempotencyMode = "off" // and so is the empty mode
	IdempotencyOptional IdempotencyMode = "optional"
	IdempotencyRequired IdempotencyMode = "required"
)

func (i Idempotency) on() bool { return i.Mode == IdempotencyOptional || i.Mode == IdempotencyRequired }

func (i Idempotency) withDefaults() Idempotency {
	if i.TTL <= 0 {
		i.TTL = 24 * time.Hour
	}
	if i.MaxAnswer <= 0 {
		i.MaxAnswer = 1 << 20
	}
	return i
}

// Codes of what may be wrong with a key.
const (
	codeKeyInvalid  = "idempotency.key_invalid"
	codeKeyRequired = "idempotency.key_required"
	codeKeyConflict = "idempotency.conflict"
	codeInProgress  = "idempotency.in_progress"
	codeNotStored   = "idempotency.response_not_stored"
	codeBodyTooLong = "idempotency.body_too_large"
	codeNoRoom      = "idempotency.no_room"
)

const headerIdempotencyKey = "Idempotency-Key"

// maxKey is how long an Idempotency-Key may be.
const maxKey = 255

// requestKey is a key that a client gave.
type requestKey struct {
	kind  string // extensionIdentifier or headerIdempotencyKey
	value string
}

// conflict is what each kind's specification wants for a key that came with another request before.
func (k requestKey) conflict() int {
	if k.kind == extensionIdentifier {
		return http.StatusConflict
	}
	return http.StatusUnprocessableEntity
}

// readKeys finds the keys of a request that carries a payment.
func (a *attempt) readKeys() error {
	if !a.Idempotency.on() || a.buysGrant() { // its request id does the same, and no token is stored
		return nil
	}
	id, err := identifier(a.payload)
	if err != nil {
		return badKey(err)
	}
	if id != "" {
		a.keys = append(a.keys, requestKey{extensionIdentifier, id})
	}
	if values := a.r.Header[headerIdempotencyKey]; len(values) > 0 {
		key, err := parseKey(values)
		if err != nil {
			return badKey(err)
		}
		a.keys = append(a.keys, requestKey{headerIdempotencyKey, key})
	}
	if len(a.keys) > 0 && a.r.ContentLength > keyedBody {
		return bodyTooLong()
	}
	return nil
}

// needsKey refuses a new payment without a key where one is required.
func (a *attempt) needsKey() error {
	if a.keyed() || a.Idempotency.Mode != IdempotencyRequired || a.buysGrant() {
		return nil
	}
	return &refusal{
		status: http.StatusBadRequest, code: codeKeyRequired,
		detail: "this request needs a key: give an id in the extension payment-identifier, or an Idempotency-Key; nothing was charged",
	}
}

func badKey(err error) error {
	return &refusal{status: http.StatusBadRequest, code: codeKeyInvalid, detail: err.Error() + "; this request charged nothing", cause: err}
}

var errKeyForm = errors.New("Idempotency-Key must be given once, as a string of 1 to 255 printable characters")

// parseKey reads an Idempotency-Key: a String of RFC 8941 (section 3.3.3), as the draft demands, without parameters; or bare, as
// most clients send it. Both ways of writing a key mean the same one.
func parseKey(values []string) (string, error) {
	if len(values) != 1 {
		return "", errKeyForm
	}
	v := strings.Trim(values[0], " \t")
	var key string
	if strings.HasPrefix(v, `"`) {
		var ok bool
		if key, ok = unquoteKey(v); !ok {
			return "", errKeyForm
		}
	} else {
		for _, c := range []byte(v) {
			// A comma is how intermediaries join repeated headers.
			if c <= ' ' || c >= 0x7f || c == ',' || c == '"' {
				return "", errKeyForm
			}
		}
		key = v
	}
	if len(key) == 0 || len(key) > maxKey {
		return "", errKeyForm
	}
	return key, nil
}

// unquoteKey reads a whole String of RFC 8941, section 4.2.5.
func unquoteKey(v string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(v); i++ {
		c := v[i]
		switch {
		case c == '"':
			return b.String(), i == len(v)-1
		case c == '\\':
			if i++; i == len(v) || v[i] != '"' && v[i] != '\\' {
				return "", false
			}
			c = v[i]
		case c < ' ' || c >= 0x7f:
			return "", false
		}
		b.WriteByte(c)
	}
	return "", false
}

// keyed reports whether the request carries a key that counts.
func (a *attempt) keyed() bool { return len(a.keys) > 0 }

// fingerprint is what must be equal for two requests under one key to be the same: which request, and what was chosen to
// pay it with. The amount is left out: a price that changed meanwhile makes no other request of it. Of the header those count that
// say which part or state of a thing is asked for.
func (a *attempt) fingerprint(b ledger.Binding, id x402.AuthorizationID) common.Hash {
	parts := []string{
		"request", a.r.Method, a.Host, ledger.Text(b.Route), ledger.Text(b.Plan), string(id.Asset[:]), a.URI, string(a.body),
	}
	for _, name := range [...]string{
		"Content-Type", "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
	} {
		parts = append(parts, strings.Join(a.r.Header[name], ", "))
	}
	if b.Plan == "" {
		parts = append(parts, a.ofPrice()...)
	}
	return digest(parts...)
}

// withoutEncoding makes the upstream's answer to a request with a key one for every client: what is stored must not be encoded as only
// the first of them understands.
func (a *attempt) withoutEncoding() {
	a.r.Header["Accept-Encoding"] = []string{"identity"}
}

// hash is what a key is known by in the ledger: who can't prove to be its payer can't compute it.
func (k requestKey) hash(id x402.AuthorizationID, host string) common.Hash {
	return digest(k.kind, chainText(id.ChainID), string(id.Payer[:]), host, k.value)
}

func chainText(id uint64) string { return string(binary.BigEndian.AppendUint64(nil, id)) }

// digest hashes parts so that no two lists of them give the same bytes; the first says what it is a hash of.
func digest(parts ...string) common.Hash {
	h := sha256.New()
	h.Write([]byte("caddy-x402"))
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return common.Hash(h.Sum(nil))
}

func conflict(status int) *refusal {
	return &refusal{
		status: status, code: codeKeyConflict,
		detail: "this key was used for another request; send the request that it belongs to, or take a new key; this request charged nothing",
	}
}

// inProgress is for a request whose first copy is being answered.
func inProgress(payment string) *refusal {
	return &refusal{
		status: http.StatusConflict, code: codeInProgress, payment: payment, retry: true,
		detail: "the first request with this key is being answered; send the same request again later to get its answer",
	}
}

// missingAnswer is for a request that was paid for and answered, but whose answer can't be given again; why is on record.
func missingAnswer(p *ledger.Payment, why string) *refusal {
	r := notStored(p)
	r.detail = "the first request with this key was paid for and answered, and its answer is not stored (" + why + "); it is not charged again"
	return r
}

// notStored is for a request whose payment is used, without an answer to this request on record: that may have been lost, or have
// expired, or the payment served another request of its payer (see adopt). p is nil if the payment is not known any more.
func notStored(p *ledger.Payment) *refusal {
	r := &refusal{
		status: http.StatusConflict, code: codeNotStored, receipt: p,
		detail: "the payment of this key is used, for the first request with this key or for another request of yours, and no answer " +
			"is stored; this request is not charged again, take a new key to pay for it anew",
	}
	if p != nil {
		r.payment = p.ID
	}
	return r
}

// mayBeDone is for a request whose upstream call came to no answer that anybody got, and that charged nothing.
func mayBeDone(p *ledger.Payment) *refusal {
	return &refusal{
		status: http.StatusConflict, code: codeNotStored, payment: p.ID,
		detail: "the first request with this key reached the upstream, which may have done what it asks for; its payment came to nothing " +
			"and charged nothing. Find out what was done, and take a new key to ask again",
	}
}

func bodyTooLong() *refusal {
	return &refusal{
		status: http.StatusRequestEntityTooLarge, code: codeBodyTooLong,
		detail: "the body of a request with an idempotency key may have 1 MiB; send a shorter one, or no key; this request charged nothing",
	}
}

// noRoom is for a request whose body would have to be held beside too many others.
func noRoom() *refusal {
	return &refusal{
		status: http.StatusServiceUnavailable, code: codeNoRoom,
		detail: "too many requests with idempotency keys are being read; send the same request again later; it charged nothing",
	}
}
