package caddymodule

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// Idempotency says what is made of keys by which clients say that a request is the same as one before.
type Idempotency struct {
	// `off`, `optional` or `required`: then a payment without a key of either kind is answered 400. Default: optional.
	Mode string `json:"mode,omitempty"`
	// How long a key and the answer to its request are remembered, 10 minutes at least. Default: 24h.
	TTL caddy.Duration `json:"ttl,omitempty"`
	// How long the body of an answer may be to be stored, in bytes, 16 MiB at most. A request whose answer was longer is not
	// answered again, and not charged again either. Default: 1048576 (1 MiB).
	MaxAnswer int `json:"max_answer,omitempty"`
}

// mostAnswer bounds what ledgers are asked to keep, and what each request with a key may take of memory.
const mostAnswer = 16 << 20

// leastKeyTTL outlasts an answer: a key must not be forgotten before its request is answered.
const leastKeyTTL = 10 * time.Minute

func (i *Idempotency) provision() (paywall.Idempotency, error) {
	out := paywall.Idempotency{Mode: paywall.IdempotencyOptional}
	if i == nil {
		return out, nil
	}
	switch mode := paywall.IdempotencyMode(i.Mode); mode {
	case "":
	case paywall.IdempotencyOff, paywall.IdempotencyOptional, paywall.IdempotencyRequired:
		out.Mode = mode
	default:
		return out, fmt.Errorf("idempotency %q is neither off nor optional nor required", i.Mode)
	}
	switch {
	case out.Mode == paywall.IdempotencyOff && (i.TTL != 0 || i.MaxAnswer != 0):
		return out, errors.New("idempotency off leaves nothing to configure")
	case i.TTL < 0 || i.TTL != 0 && time.Duration(i.TTL) < leastKeyTTL:
		return out, errors.New("idempotency: ttl must be 10 minutes or more; a key that is forgotten before its request is answered " +
			"would let that be charged twice")
	case i.MaxAnswer < 0 || i.MaxAnswer > mostAnswer:
		return out, errors.New("idempotency: max_answer must be between 1 byte and 16 MiB")
	}
	out.TTL, out.MaxAnswer = time.Duration(i.TTL), i.MaxAnswer
	return out, nil
}
