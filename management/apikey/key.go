package apikey

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const idPrefix = "ak_"

// Key is what is known of a key. Times are in UTC; a zero one means that it has not happened, or never will.
type Key struct {
	ID     string  `json:"id"`
	Prefix string  `json:"prefix"`
	Label  string  `json:"label"`
	Mode   Mode    `json:"mode"`
	Scopes []Scope `json:"scopes"`

	CreatedAt  time.Time `json:"createdAt"`
	CreatedBy  string    `json:"createdBy"`
	ExpiresAt  time.Time `json:"expiresAt,omitzero"`
	LastUsedAt time.Time `json:"lastUsedAt,omitzero"` // to within a minute
	RevokedAt  time.Time `json:"revokedAt,omitzero"`

	// Of a predecessor: when it was rotated, by which key it was followed, and until when both are good.
	RotatedAt     time.Time `json:"rotatedAt,omitzero"`
	RotatedTo     string    `json:"rotatedTo,omitempty"`
	OverlapEndsAt time.Time `json:"overlapEndsAt,omitzero"`
	// RotatedFrom is the predecessor of a successor.
	RotatedFrom string `json:"rotatedFrom,omitempty"`

	// RotationDueAt is when it was told of that the key is older than it should be.
	RotationDueAt time.Time `json:"rotationDueAt,omitzero"`
}

// Ends is when the key stops to be good by itself: at its end, or that of its overlap. Zero: never.
func (k *Key) Ends() time.Time { return sooner(k.ExpiresAt, k.OverlapEndsAt) }

// Superseded reports whether the key was rotated.
func (k *Key) Superseded() bool { return k.RotatedTo != "" }

// Errors of keys.
var (
	// ErrInvalid: it is no key, or there is none with this secret.
	ErrInvalid = errors.New("apikey: there is no such key")
	ErrExpired = errors.New("apikey: the key has expired")
	ErrRevoked = errors.New("apikey: the key was revoked")
	// ErrNotFound: there is no key with this id.
	ErrNotFound = errors.New("apikey: there is no key with this id")
	// ErrRotating: the key was rotated already, and its overlap has not ended.
	ErrRotating = errors.New("apikey: the key was rotated already")
	// ErrRequest: what was asked for can't be.
	ErrRequest = errors.New("apikey: not possible")
)

// Good answers nil if the key may be used at the time now, else ErrRevoked or ErrExpired.
func (k *Key) Good(now time.Time) error {
	if !k.RevokedAt.IsZero() {
		return ErrRevoked
	}
	if end := k.Ends(); !end.IsZero() && !now.Before(end) {
		return ErrExpired
	}
	return nil
}

// Request asks for a key.
type Request struct {
	Mode   Mode
	Label  string
	Scopes []Scope
	// Life is how long the key is to be good; zero: until it is revoked.
	Life time.Duration
}

// The limits of a request.
const (
	maxLabel = 80
	minLife  = time.Minute
	maxLife  = 10 * 365 * 24 * time.Hour
)

// check refuses what can't be made, and leaves each scope once.
func (r *Request) check() (err error) {
	switch {
	case r.Mode != Test && r.Mode != Live:
		return fmt.Errorf("%w: the mode must be test or live", ErrRequest)
	case strings.TrimSpace(r.Label) == "":
		return fmt.Errorf("%w: a key needs a label that says whose it is", ErrRequest)
	case !utf8.ValidString(r.Label) || utf8.RuneCountInString(r.Label) > maxLabel || strings.ContainsFunc(r.Label, unicode.IsControl):
		return fmt.Errorf("%w: the label must be at most %d characters, none of them a control character", ErrRequest, maxLabel)
	case r.Life != 0 && (r.Life < minLife || r.Life > maxLife):
		return fmt.Errorf("%w: a key is good for a minute to ten years, or until it is revoked", ErrRequest)
	}
	r.Scopes, err = ParseScopes(Names(r.Scopes))
	return err
}
