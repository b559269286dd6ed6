package sqlite

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// micros is t as it is stored; 0 is the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// octets is a hash or an address as it is stored: nothing for zero.
func octets(b []byte) []byte {
	for _, x := range b {
		if x != 0 {
			return b
		}
	}
	return []byte{}
}

// The columns are read through these, each the reverse of how it is written.
type (
	instant struct{ t *time.Time }
	fixed   []byte
	decimal struct{ n *uint256.Int }
	natural struct{ n *uint64 }
)

var _ = []sql.Scanner{instant{}, fixed{}, decimal{}, natural{}}

func (c instant) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("%w: a time is %T", ErrSchema, src)
	}
	*c.t = time.Time{}
	if n != 0 {
		*c.t = time.UnixMicro(n).UTC()
	}
	return nil
}

func (c fixed) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok && src != nil || len(b) != 0 && len(b) != len(c) {
		return fmt.Errorf("%w: a hash or address is %T of %d bytes", ErrSchema, src, len(b))
	}
	clear(c)
	copy(c, b)
	return nil
}

func (c decimal) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("%w: an amount is %T", ErrSchema, src)
	}
	if err := c.n.SetFromDecimal(s); err != nil {
		return fmt.Errorf("%w: an amount: %w", ErrSchema, err)
	}
	return nil
}

func (c natural) Scan(src any) error {
	n, ok := src.(int64)
	if !ok || n < 0 {
		return fmt.Errorf("%w: a number is %v", ErrSchema, src)
	}
	*c.n = uint64(n)
	return nil
}

// paymentColumns are the columns of a payment, in the order of scanPayment.
const paymentColumns = `id, version, chain_id, asset, payer, nonce, pay_to, amount, valid_before, header_hash,
	route, plan, method, host, uri, flow, claim_block,
	settlement, delivery, refund, reason, tx_hash, block_number, block_hash, is_final,
	hold_fence, hold_until, plan_until, served_by, created_at, updated_at, settled_at, delivered_at`

func scanPayment(row scanner, p *ledger.Payment, more ...any) error {
	return row.Scan(append([]any{
		&p.ID,
		natural{&p.Version},
		natural{&p.ChainID},
		fixed(p.Asset[:]), fixed(p.Payer[:]), fixed(p.Nonce[:]),
		fixed(p.PayTo[:]),
		decimal{&p.Amount},
		natural{&p.ValidBefore},
		fixed(p.HeaderHash[:]),
		&p.Binding.Route, &p.Binding.Plan, &p.Binding.Method, &p.Binding.Host, &p.Binding.URI, &p.Flow,
		natural{&p.ClaimBlock},
		&p.Settlement, &p.Delivery, &p.Refund, &p.Reason, fixed(p.Transaction[:]),
		natural{&p.Block},
		fixed(p.BlockHash[:]), &p.Final,
		natural{&p.Hold.Fence},
		instant{&p.Hold.Until},
		instant{&p.PlanUntil},
		&p.ServedBy,
		instant{&p.CreatedAt},
		instant{&p.UpdatedAt},
		instant{&p.SettledAt},
		instant{&p.DeliveredAt},
	}, more...)...)
}

// subjectValues are the columns up to claim_block, without the version.
func subjectValues(p *ledger.Payment) []any {
	return []any{
		p.ID, p.ChainID, octets(p.Asset[:]), octets(p.Payer[:]), octets(p.Nonce[:]),
		octets(p.PayTo[:]), p.Amount.Dec(), p.ValidBefore, octets(p.HeaderHash[:]),
		p.Binding.Route, p.Binding.Plan, p.Binding.Method, p.Binding.Host, p.Binding.URI, p.Flow, p.ClaimBlock,
	}
}

// stateValues are the version and the columns from settlement on, with the derived ones and the hash of the last
// audit entry.
func stateValues(p *ledger.Payment, audit common.Hash) []any {
	return []any{
		p.Version, string(p.Settlement), string(p.Delivery), string(p.Refund), p.Reason, octets(p.Transaction[:]), p.Block,
		octets(p.BlockHash[:]), flag(p.Final),
		p.Hold.Fence, micros(p.Hold.Until), micros(p.PlanUntil), p.ServedBy,
		micros(p.CreatedAt), micros(p.UpdatedAt), micros(p.SettledAt), micros(p.DeliveredAt),
		string(p.State()), flag(p.Open()), flag(p.Unserved()), audit[:],
	}
}

const entryColumns = `payment_id, version, at, event, actor, reason, settlement, delivery, refund,
	hold_fence, hold_until, tx_hash, block_number, block_hash, plan_until, served_by, subject, previous, hash`

func scanEntry(row scanner, e *ledger.Entry) error {
	return row.Scan(
		&e.Payment, natural{&e.Version}, instant{&e.At}, &e.Event, &e.Actor, &e.Reason,
		&e.Settlement, &e.Delivery, &e.Refund, natural{&e.Hold.Fence}, instant{&e.Hold.Until},
		fixed(e.Transaction[:]), natural{&e.Block}, fixed(e.BlockHash[:]), instant{&e.PlanUntil}, &e.ServedBy,
		fixed(e.Subject[:]), fixed(e.Previous[:]), fixed(e.Hash[:]),
	)
}

func entryValues(e *ledger.Entry) []any {
	return []any{
		e.Payment, e.Version, micros(e.At), string(e.Event), e.Actor, e.Reason,
		string(e.Settlement), string(e.Delivery), string(e.Refund), e.Hold.Fence, micros(e.Hold.Until),
		octets(e.Transaction[:]), e.Block, octets(e.BlockHash[:]), micros(e.PlanUntil), e.ServedBy,
		octets(e.Subject[:]), octets(e.Previous[:]), e.Hash[:],
	}
}
