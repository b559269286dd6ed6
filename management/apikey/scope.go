package apikey

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scope is something that a key allows.
type Scope string

// The scopes. There are no others.
const (
	PaymentsRead   Scope = "payments:read"   // see payments, plans, refunds, wallets, the audit and the settings
	PaymentsWrite  Scope = "payments:write"  // have them settled, refunded, and their tokens taken back
	WebhooksManage Scope = "webhooks:manage" // endpoints of webhooks and their secrets
	KeysManage     Scope = "keys:manage"     // other keys, within one's own scopes
	Access         Scope = "access"          // nothing here: a consumer who is known by it, and has limits of its own
)

// Scopes lists all of them.
func Scopes() []Scope {
	return []Scope{PaymentsRead, PaymentsWrite, WebhooksManage, KeysManage, Access}
}

// ParseScopes reads names of scopes; each counts once. An error does not repeat them: one may be a secret in a wrong place.
func ParseScopes(names []string) ([]Scope, error) {
	var out []Scope
	for i, name := range names {
		s := Scope(name)
		if !slices.Contains(Scopes(), s) {
			return nil, fmt.Errorf("%w: scope %d is none; there are %s", ErrRequest, i+1, strings.Join(Names(Scopes()), ", "))
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: a key needs a scope; there are %s", ErrRequest, strings.Join(Names(Scopes()), ", "))
	}
	return out, nil
}

// Names are scopes as text.
func Names(scopes []Scope) []string {
	out := make([]string, len(scopes))
	for i, s := range scopes {
		out[i] = string(s)
	}
	return out
}

// Grantor is who makes, rotates and revokes keys. What it gives is within what it has.
type Grantor struct {
	// Actor is what is written down, such as "admin" or a key's id.
	Actor string
	// Local may do everything: it sits at the machine.
	Local bool
	// The following is of the key that it signed in with.
	Mode   Mode
	Scopes []Scope
	Until  time.Time // zero: it does not end
}

// ErrWider: the grantor would give more than it has.
var ErrWider = errors.New("apikey: a key can't give more than it has")

// mayGive refuses a key of this mode and these scopes.
func (g *Grantor) mayGive(m Mode, scopes []Scope) error {
	if g.Local {
		return nil
	}
	if m != g.Mode {
		return fmt.Errorf("%w: it is a %s key", ErrWider, g.Mode)
	}
	for _, s := range scopes {
		if !slices.Contains(g.Scopes, s) {
			return fmt.Errorf("%w: it does not have the scope %s", ErrWider, s)
		}
	}
	return nil
}

// until is the given end of a key, or, if that is sooner, the grantor's own: none gives another a longer life than it has itself.
func (g *Grantor) until(t time.Time) time.Time {
	if g.Local {
		return t
	}
	return sooner(t, g.Until)
}

// sooner is the earlier of two times of which zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
