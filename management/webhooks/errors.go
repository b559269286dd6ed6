package webhooks

import (
	"errors"
	"fmt"
)

// What is wrong in general; every Error is one of these, by errors.Is.
var (
	// ErrNotFound: there is no such endpoint or delivery, or none of this mode.
	ErrNotFound = errors.New("webhooks: not found")
	// ErrInvalid: what was asked for can't be.
	ErrInvalid = errors.New("webhooks: invalid")
	// ErrConflict: it can't be done as things are now.
	ErrConflict = errors.New("webhooks: conflict")
	// ErrUnavailable: it can't be done by this instance as it is configured, or until the key that seals secrets could be loaded.
	ErrUnavailable = errors.New("webhooks: unavailable")
)

// The stable codes of Error.
const (
	CodeNotFound         = "webhook.not_found"
	CodeDeliveryNotFound = "webhook.delivery_not_found"
	CodeURLInvalid       = "webhook.url_invalid"
	CodeEventsInvalid    = "webhook.events_invalid"
	CodeTextInvalid      = "webhook.description_invalid"
	CodeOverlapInvalid   = "webhook.overlap_invalid"
	CodeQueryInvalid     = "webhook.query_invalid"
	CodeTooMany          = "webhook.too_many_endpoints"
	CodeConfigured       = "webhook.configured"
	CodeDisabled         = "webhook.disabled"
	CodeUnderWay         = "webhook.delivery_under_way"
	CodeChanging         = "webhook.changed_meanwhile"
	CodeKeyMissing       = "webhook.key_missing"
)

// Error is what went wrong, for programs and for people.
type Error struct {
	// Code is stable, and Message may be shown to whoever asked.
	Code, Message string
	kind          error
}

// Error gives the words.
func (e *Error) Error() string { return e.Message }

// Unwrap gives which of the package's errors it is.
func (e *Error) Unwrap() error { return e.kind }

func fail(kind error, code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), kind: kind}
}
