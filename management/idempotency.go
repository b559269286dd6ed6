package management

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

const (
	headerIdempotency = "Idempotency-Key"
	headerReplayed    = "Idempotency-Replayed"
	maxIdempotencyKey = 255
	kindIdempotency   = "idempotency"
	// underWay is how long a call may take. One that is not done by then has died with its instance, and the next call with its key is made:
	// every operation bears to be begun again.
	underWay = time.Minute
	// maxReplay is how long an answer that is kept may be.
	maxReplay = 40 << 10
)

// replay is what is kept of a call with an Idempotency-Key.
type replay struct {
	// Fingerprint tells another request with the same key apart.
	Fingerprint string `json:"fingerprint"`
	// Until is when a call that is under way counts as lost; zero once it is done.
	Until time.Time `json:"until,omitzero"`

	Status      int    `json:"status,omitempty"`
	ContentType string `json:"contentType,omitempty"`
	Body        []byte `json:"body,omitempty"`
	TooLong     bool   `json:"tooLong,omitempty"`
}

// once has a call done once for its Idempotency-Key, if it has one.
func (a *API) once(ctx context.Context, x *exchange, do func() error) error {
	key, err := idempotencyKey(x.r)
	if err != nil {
		return err
	}
	if key == "" {
		if x.rule.keyRequired {
			return told(http.StatusBadRequest, CodeIdempotencyRequired,
				"this call needs an Idempotency-Key: make one, and send the same if you have to send the call again", nil)
		}
		return do()
	}
	request := fingerprint(x.r, x.body)
	o := ledger.Object{Kind: kindIdempotency, ID: hashed(x.caller.actor, x.network, key), Group: x.network}
	mine := replay{Fingerprint: request, Until: x.shop.Store.Now().Add(underWay)}
	o, theirs, err := a.reserve(ctx, x, o, mine)
	if err != nil {
		return err
	}
	if theirs != nil {
		return theirs.answer(x, request)
	}
	err = do()
	a.settle(ctx, x, o, mine, err)
	return err
}

// reserve makes the key ours, or gives what is kept under it.
func (a *API) reserve(ctx context.Context, x *exchange, o ledger.Object, mine replay) (ledger.Object, *replay, error) {
	var err error
	if o.Body, err = json.Marshal(mine); err != nil {
		return o, nil, fmt.Errorf("encoding a call: %w", err)
	}
	o.Expires = x.shop.Store.Now().Add(a.replayFor)
	kept, err := x.shop.Store.PutObject(ctx, o)
	if err == nil {
		return kept, nil, nil
	}
	if !errors.Is(err, ledger.ErrExists) {
		return o, nil, unavailable(err)
	}
	var theirs replay
	if err := json.Unmarshal(kept.Body, &theirs); err != nil {
		return o, nil, unavailable(fmt.Errorf("reading a call: %w", err))
	}
	if theirs.Fingerprint != mine.Fingerprint || theirs.Until.IsZero() || x.shop.Store.Now().Before(theirs.Until) {
		return o, &theirs, nil
	}
	o.Version = kept.Version // it died
	kept, err = x.shop.Store.PutObject(ctx, o)
	switch {
	case err == nil:
		return kept, nil, nil
	case errors.Is(err, ledger.ErrConflict):
		return o, &mine, nil // somebody was faster
	}
	return o, nil, unavailable(err)
}

// answer gives what is kept to a call that comes again.
func (p *replay) answer(x *exchange, fingerprint string) error {
	switch {
	case p.Fingerprint != fingerprint:
		return told(http.StatusUnprocessableEntity, CodeIdempotencyConflict, "this Idempotency-Key was used for another request", nil)
	case !p.Until.IsZero():
		e := told(http.StatusConflict, CodeIdempotencyUnderWay, "a call with this Idempotency-Key is under way", nil)
		e.RetryAfter = 1
		return e
	}
	x.answer.Header().Set(headerReplayed, "true")
	if p.TooLong {
		e := told(http.StatusConflict, CodeIdempotencyNotStored, "the call was made, and its answer was too long to be kept", nil)
		e.header = map[string]string{headerReplayed: "true"}
		return e
	}
	if p.ContentType != "" {
		x.answer.Header().Set("Content-Type", p.ContentType)
	}
	x.answer.WriteHeader(p.Status)
	_, err := x.answer.Write(p.Body)
	return err
}

// settle keeps the answer of a call, or forgets a call that had no effect.
func (a *API) settle(ctx context.Context, x *exchange, o ledger.Object, p replay, failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	p.Until = time.Time{}
	if failed != nil {
		e := asError(failed)
		if e.Status >= http.StatusInternalServerError || slices.Contains(unkept, e.Status) || slices.Contains(passing, e.Code) {
			if err := x.shop.Store.DeleteObject(ctx, kindIdempotency, o.ID, o.Version); err != nil {
				a.unsettled(ctx, x, err)
			}
			return
		}
		p.Status = e.Status
		p.ContentType, p.Body = e.encode(x.r, x.id)
	} else {
		p.Status, p.ContentType, p.Body = x.answer.status, x.answer.Header().Get("Content-Type"), withoutSecrets(x.answer.body.Bytes())
	}
	if len(p.Body) > maxReplay {
		p.Body, p.TooLong = nil, true
	}
	body, err := json.Marshal(p)
	if err == nil {
		o.Body = body
		_, err = x.shop.Store.PutObject(ctx, o)
	}
	if err != nil {
		a.unsettled(ctx, x, err)
	}
}

const settleTimeout = 5 * time.Second

// unkept are the answers after which the same call may be made again: nothing was done.
var unkept = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnsupportedMediaType, http.StatusTooManyRequests,
}

// passing are the codes of what was not done now and may be a moment later: who is told to try again has no other key for it.
var passing = []string{CodeConflict, webhooks.CodeChanging, webhooks.CodeUnderWay}

func (a *API) unsettled(ctx context.Context, x *exchange, err error) {
	a.log.WarnContext(ctx, "the answer to an Idempotency-Key can't be kept; it is answered with 409 for a minute", slog.String("request", x.id), slog.Any("error", err))
}

// idempotencyKey reads the header: a quoted string (RFC 8941), or, as most clients send it, the bare key.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values(headerIdempotency)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if inner, ok := strings.CutPrefix(key, `"`); ok {
		inner, ok = strings.CutSuffix(inner, `"`)
		if !ok || strings.ContainsAny(inner, `"\`) {
			key = ""
		} else {
			key = inner
		}
	}
	printable := !strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' })
	if len(values) > 1 || key == "" || len(key) > maxIdempotencyKey || !printable {
		return "", told(http.StatusBadRequest, CodeIdempotencyInvalid,
			"the Idempotency-Key must be there once: 1 to 255 printable characters, with or without quotes", nil)
	}
	return key, nil
}

// fingerprint hashes what makes a request the same.
func fingerprint(r *http.Request, body []byte) string {
	return hashed(r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type"), string(body))
}

// hashed is one name for several texts, whatever is in them.
func hashed(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// withoutSecrets is an answer with null in place of every secret: what is shown once is not kept.
func withoutSecrets(body []byte) []byte {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil || !blank(v) {
		return body
	}
	out, err := json.Marshal(v)
	if err != nil { // it came from JSON
		return nil
	}
	return append(out, '\n')
}

// secretFields are the names under which answers have secrets.
var secretFields = []string{"secret", "signingSecret"}

// blank takes secrets out, and reports whether there were any.
func blank(v any) (found bool) {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			if slices.Contains(secretFields, name) {
				v[name], found = nil, true
			} else if blank(v[name]) {
				found = true
			}
		}
	case []any:
		for i := range v {
			found = blank(v[i]) || found
		}
	}
	return found
}
