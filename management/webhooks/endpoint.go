package webhooks

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Endpoint is where events are told.
type Endpoint struct {
	ID string `json:"id"`
	// Live endpoints are told of real money, the others of test networks; neither hears of the other.
	Live        bool   `json:"livemode"`
	URL         string `json:"url"`
	Description string `json:"description,omitempty"`
	// Events filters by type; empty: all. See Types.
	Events []string `json:"events,omitempty"`
	// Compatibility adds the headers of Blockchain0x's webhooks.
	Compatibility bool `json:"compatibility,omitempty"`
	// Active endpoints are told; DisabledReason says why one is not: DisabledGone, or DisabledByOperator.
	Active         bool   `json:"active"`
	DisabledReason string `json:"disabledReason,omitempty"`
	// Configured endpoints are those of the configuration, and are changed there.
	Configured bool      `json:"configured,omitempty"`
	CreatedAt  time.Time `json:"createdAt"`
	UpdatedAt  time.Time `json:"updatedAt"`
	// OverlapEndsAt is until when deliveries are signed with the former secret, too.
	OverlapEndsAt time.Time `json:"overlapEndsAt,omitzero"`
}

// Why an endpoint is not active.
const (
	DisabledGone       = "gone"     // it answered 410
	DisabledByOperator = "operator" // somebody said so
)

// storedEndpoint is an Endpoint as the ledger has it.
type storedEndpoint struct {
	Endpoint
	// Secrets, sealed, the newest first; none for those of the configuration, which has them.
	Secrets []storedSecret `json:"secrets,omitempty"`
	// Seen is when an instance last had it in its configuration.
	Seen time.Time `json:"seen,omitzero"`
}

type storedSecret struct {
	Sealed string    `json:"sealed"`
	Until  time.Time `json:"until,omitzero"` // zero: as long as it is there
}

// Configured is an endpoint of the configuration.
type Configured struct {
	URL           string
	Live          bool
	Description   string
	Events        []string
	Compatibility bool
	// Secrets sign, all of them, the newest first: so a secret is replaced by listing the new one before the old one.
	Secrets []string
}

const (
	maxURL         = 2048
	maxDescription = 280
	maxEndpoints   = 100 // of a mode
)

var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

const endpointPrefix = "we_"

func newEndpointID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return endpointPrefix + encoding.EncodeToString(b[:])
}

// ID is the endpoint's, which is the same wherever it is configured and after each start.
func (c *Configured) ID() string {
	h := sha256.Sum256([]byte(group(c.Live) + " " + c.URL))
	return endpointPrefix + "c" + encoding.EncodeToString(h[:16])
}

// Check refuses what can't be told anything.
func (c *Configured) Check() error {
	if err := check(c.URL, c.Live, c.Description, c.Events); err != nil {
		return err
	}
	if len(c.Secrets) == 0 {
		return fail(ErrInvalid, CodeURLInvalid, "the webhook has no secret to sign with")
	}
	for _, s := range c.Secrets {
		if err := CheckSecret(s); err != nil {
			return err
		}
	}
	return nil
}

// group is what endpoints of a mode are listed by.
func group(live bool) string {
	if live {
		return "live"
	}
	return "test"
}

// check refuses what no endpoint can be, whoever made it.
func check(address string, live bool, description string, events []string) error {
	if err := checkURL(address, live); err != nil {
		return err
	}
	if err := checkText(description); err != nil {
		return err
	}
	return checkFilter(events)
}

// checkURL refuses what is no address of a receiver. What it resolves to is looked at when it is dialled.
func checkURL(text string, live bool) error {
	bad := func(why string) error { return fail(ErrInvalid, CodeURLInvalid, "the webhook's URL %s", why) }
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL:
		return bad("is too long")
	case err != nil || u.Host == "" || u.Hostname() == "" || strings.ContainsFunc(text, unicode.IsSpace) || !utf8.ValidString(text):
		return bad("can't be read; write one such as https://example.com/hooks")
	case u.User != nil:
		return bad("must hold no name or password: it is shown to whoever may read the configuration")
	case u.Fragment != "":
		return bad("must have no fragment, which is never sent")
	case u.Scheme == "https", u.Scheme == "http" && !live:
		return nil
	case live:
		return bad("must be https: it is told of real money")
	}
	return bad("must be https, or http for tests")
}

func checkText(s string) error {
	if utf8.RuneCountInString(s) > maxDescription || s != ledger.Text(s) {
		return fail(ErrInvalid, CodeTextInvalid, "a description is text of %d characters at most", maxDescription)
	}
	return nil
}

// clocks is how much the clocks may differ that date events and endpoints. An endpoint may hear of what happened so long before it was made.
const clocks = 10 * time.Second

// hears reports whether the endpoint is to be told of ev.
func (e *storedEndpoint) hears(ev *Event) bool {
	return e.Active && e.Live == ev.Live && wanted(e.Events, ev.Type) && !ev.At.Before(e.CreatedAt.Add(-clocks))
}

// shown is the endpoint for whoever asks, at the time now.
func (e *storedEndpoint) shown(now time.Time) Endpoint {
	out := e.Endpoint
	out.Events = slices.Clone(e.Events)
	for _, s := range e.Secrets {
		if s.Until.After(now) {
			out.OverlapEndsAt = s.Until
		}
	}
	return out
}

// secrets are what signs at the time now, the newest first. Those of the configuration are not here.
func (e *storedEndpoint) secrets(keys *Keys, now time.Time) ([]string, error) {
	var out []string
	for _, s := range e.Secrets {
		if !s.Until.IsZero() && !s.Until.After(now) {
			continue
		}
		text, err := keys.open(s.Sealed, e.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}
