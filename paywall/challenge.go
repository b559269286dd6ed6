package paywall

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Challenge is what was asked for under a request id: it may be paid until it expires, and cancelled until it is paid. It is no
// payment, since nobody has signed anything, so it is not among the ledger's payments: it is a reservation, whose key is a hash of the site
// and the request id. So there is one of a kind at any time, over all instances, and each of its steps is a compare-and-set on what it is
// reserved for: the challenge itself while it is open, then its payment.
type Challenge struct {
	// ID is unguessable, and is told only to whoever asked: who knows it may see what became of it, and cancel it.
	ID        string `json:"id"`
	RequestID string `json:"request_id"`
	// Item is the plan or the route in the catalogue that was asked for.
	Item string `json:"item"`
	// Plan says that Item is a plan.
	Plan bool `json:"plan,omitempty"`
	// Network, Asset, Amount (atomic units) and PayTo are the first way to pay that was offered.
	Network string `json:"network,omitempty"`
	Asset   string `json:"asset,omitempty"`
	Amount  string `json:"amount,omitempty"`
	PayTo   string `json:"pay_to,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Ids of challenges: what was asked for, the half of a hash that is the reservation's key, and 128 bits of random.
const (
	planChallenge  = "http-"
	routeChallenge = "route-"

	keyedHex  = 2 * common.HashLength / 2
	randomHex = 32
)

// cancelled is what a challenge that was withdrawn is reserved for.
const cancelled = "cancelled-"

// challengeKey is where the challenge of a request id is found. Half of a hash is kept of it, so that it fits into ids.
func challengeKey(site, requestID string) (key common.Hash) {
	whole := digest("challenge", site, requestID)
	copy(key[:common.HashLength/2], whole[:])
	return key
}

func newChallengeID(random io.Reader, key common.Hash, plan bool) (string, error) {
	var b [randomHex / 2]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("making a challenge: %w", err)
	}
	prefix := routeChallenge
	if plan {
		prefix = planChallenge
	}
	return prefix + hex.EncodeToString(key[:common.HashLength/2]) + hex.EncodeToString(b[:]), nil
}

// challengeKeyOf is the key in a challenge's id; false for what is none.
func challengeKeyOf(id string) (key common.Hash, ok bool) {
	rest, plan := strings.CutPrefix(id, planChallenge)
	if !plan {
		if rest, ok = strings.CutPrefix(id, routeChallenge); !ok {
			return key, false
		}
	}
	if len(rest) != keyedHex+randomHex {
		return key, false
	}
	b, err := hex.DecodeString(rest)
	copy(key[:common.HashLength/2], b)
	return key, err == nil
}

// IsChallenge reports whether id has the form of a challenge's.
func IsChallenge(id string) bool {
	_, ok := challengeKeyOf(id)
	return ok
}

// heldChallenge is a challenge as the ledger has it.
type heldChallenge struct {
	Challenge
	reservation ledger.Reservation
}

func readChallenge(ctx context.Context, s ledger.Reservations, key common.Hash) (*heldChallenge, error) {
	r, err := s.Reservation(ctx, key)
	if err != nil {
		return nil, err
	}
	c := &heldChallenge{reservation: r}
	if err := json.Unmarshal(r.Answer, &c.Challenge); err != nil {
		return nil, fmt.Errorf("reading a challenge: %w", err)
	}
	return c, nil
}

// payment is the payment that the challenge was claimed with, or "".
func (c *heldChallenge) payment() string {
	if c.reservation.Payment == c.ID || c.cancelled() {
		return ""
	}
	return c.reservation.Payment
}

func (c *heldChallenge) cancelled() bool { return c.reservation.Payment == cancelled+c.ID }

func (c *heldChallenge) expired(now time.Time) bool { return !c.ExpiresAt.After(now) }

// state of a challenge that nobody has paid.
func (c *heldChallenge) state(now time.Time) ledger.State {
	switch {
	case c.cancelled():
		return ledger.StateCancelled
	case c.expired(now):
		return ledger.StateExpired
	}
	return ledger.StatePending
}

// put stores c for the payment, in place of what it was reserved for (empty: nothing). ledger.ErrExists: somebody was faster.
func (c *Challenge) put(
	ctx context.Context, s ledger.Reservations, key, terms common.Hash, payment, over string, ttl time.Duration,
) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("writing a challenge: %w", err)
	}
	_, err = s.Reserve(ctx, ledger.Reservation{Key: key, Fingerprint: terms, Payment: payment, Answer: raw}, over, ttl)
	return err
}

// ChallengeStatus is what whoever knows a challenge's id may know of it.
type ChallengeStatus struct {
	ChallengeID string `json:"challengeId"`
	RequestID   string `json:"requestId"`
	PlanID      string `json:"planId,omitempty"`
	RouteID     string `json:"routeId,omitempty"`
	// State is PENDING, EXPIRED or CANCELLED, or that of the payment.
	State     ledger.State `json:"state"`
	Network   string       `json:"network,omitempty"`
	Asset     string       `json:"asset,omitempty"`
	Amount    string       `json:"amount,omitempty"` // atomic units
	PayTo     string       `json:"payTo,omitempty"`
	CreatedAt time.Time    `json:"createdAt"`
	ExpiresAt time.Time    `json:"expiresAt"`
	// Payment is there once somebody has paid.
	Payment *Status `json:"payment,omitempty"`
}

// Challenge tells what became of a challenge; ledger.ErrNotFound.
func (e *Engine) Challenge(ctx context.Context, id string) (ChallengeStatus, error) {
	c, err := e.challenge(ctx, id)
	if err != nil {
		return ChallengeStatus{}, err
	}
	return e.challengeStatus(ctx, c)
}

func (e *Engine) challenge(ctx context.Context, id string) (*heldChallenge, error) {
	key, ok := challengeKeyOf(id)
	if !ok {
		return nil, ledger.ErrNotFound
	}
	c, err := readChallenge(ctx, e.store, key)
	if err != nil {
		return nil, err
	}
	if c.ID != id { // its request id has another one by now
		return nil, ledger.ErrNotFound
	}
	return c, nil
}

func (e *Engine) challengeStatus(ctx context.Context, c *heldChallenge) (ChallengeStatus, error) {
	s := ChallengeStatus{
		ChallengeID: c.ID, RequestID: c.RequestID, State: c.state(e.store.Now()), Network: c.Network, Asset: c.Asset,
		Amount: c.Amount, PayTo: c.PayTo, CreatedAt: c.CreatedAt, ExpiresAt: c.ExpiresAt,
	}
	if c.Plan {
		s.PlanID = c.Item
	} else {
		s.RouteID = c.Item
	}
	if id := c.payment(); id != "" {
		p, err := e.Status(ctx, id)
		switch {
		case errors.Is(err, ledger.ErrNotFound): // forgotten by a ledger that forgets
		case err != nil:
			return s, err
		default:
			s.State, s.Payment = p.State, &p
		}
	}
	return s, nil
}

// ErrNotPending: the challenge is paid, or being paid, or has expired.
var ErrNotPending = errors.New("paywall: the challenge is not open any more")

// CancelChallenge withdraws a challenge that nobody has paid: nobody can from then on. It may be repeated. ledger.ErrNotFound; an error
// that wraps ErrNotPending comes with the challenge as it is.
func (e *Engine) CancelChallenge(ctx context.Context, id string) (ChallengeStatus, error) {
	for range mostHolders {
		c, err := e.challenge(ctx, id)
		if err != nil {
			return ChallengeStatus{}, err
		}
		now := e.store.Now()
		if c.state(now) != ledger.StatePending || c.payment() != "" {
			s, err := e.challengeStatus(ctx, c)
			if err == nil && s.State != ledger.StateCancelled {
				err = fmt.Errorf("%w: it is %s", ErrNotPending, s.State)
			}
			return s, err
		}
		err = c.put(ctx, e.store, c.reservation.Key, c.reservation.Fingerprint, cancelled+c.ID, c.ID, c.reservation.ExpiresAt.Sub(now))
		switch {
		case err == nil:
			e.current().Observe(Observation{Event: "challenge", Outcome: "cancelled"})
		case !errors.Is(err, ledger.ErrExists):
			return ChallengeStatus{}, err
		}
	}
	return ChallengeStatus{}, errGivenUp
}
