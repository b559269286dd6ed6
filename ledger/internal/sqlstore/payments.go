package sqlstore

import (
	"math"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// PaymentColumns are the columns of a payment, in the order of ScanPayment.
const PaymentColumns = `id, version, chain_id, asset, payer, nonce, pay_to, amount, valid_before, header_hash,
	route, plan, method, host, uri, flow, claim_block,
	settlement, delivery, refund, reason, tx_hash, block_number, block_hash, is_final,
	hold_fence, hold_until, plan_until, served_by, created_at, updated_at, settled_at, delivered_at`

// EntryColumns are the columns of an audit entry, in the order of ScanEntry and EntryValues.
const EntryColumns = `payment_id, version, at, event, actor, reason, settlement, delivery, refund,
	hold_fence, hold_until, tx_hash, block_number, block_hash, plan_until, served_by, subject, previous, hash`

const insertPayment = `INSERT INTO payments (id, chain_id, asset, payer, nonce, pay_to, amount, valid_before, header_hash,
		route, plan, method, host, uri, flow, claim_block,
		version, settlement, delivery, refund, reason, tx_hash, block_number, block_hash, is_final,
		hold_fence, hold_until, plan_until, served_by, created_at, updated_at, settled_at, delivered_at,
		state, is_open, is_unserved, is_closed, audit_hash, check_at, is_archived)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
			?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`

// The statements of payments, their trails and leases.
const (
	// InsertPayment takes PaymentValues; a payment with the same id or authorization stays, and no row is changed.
	InsertPayment = insertPayment + ` ON CONFLICT DO NOTHING`
	// ClaimPayment is InsertPayment for a claim: only its authorization may be there already.
	ClaimPayment = insertPayment + ` ON CONFLICT (chain_id, asset, payer, nonce) DO NOTHING`
	// UpdatePayment takes ChangeValues. A payment that opens again is due at once; otherwise the leases keep their
	// times.
	UpdatePayment = `UPDATE payments SET version = ?, settlement = ?, delivery = ?, refund = ?, reason = ?, tx_hash = ?,
		block_number = ?, block_hash = ?, is_final = ?, hold_fence = ?, hold_until = ?, plan_until = ?, served_by = ?,
		created_at = ?, updated_at = ?, settled_at = ?, delivered_at = ?,
		state = ?, is_open = ?, is_unserved = ?, is_closed = ?, audit_hash = ?,
		check_at = CASE WHEN is_open = 1 THEN check_at ELSE updated_at END, is_archived = 0
		WHERE id = ?`
	// InsertEntry takes EntryValues.
	InsertEntry = `INSERT INTO audit (` + EntryColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	// SelectByID and SelectByAuth (see Authorization) give PaymentColumns and audit_hash.
	SelectByID   = `SELECT ` + PaymentColumns + `, audit_hash FROM payments WHERE id = ?`
	SelectByAuth = `SELECT ` + PaymentColumns + `, audit_hash FROM payments WHERE chain_id = ? AND asset = ? AND payer = ? AND nonce = ?`
	// SelectUnserved takes UnservedValues.
	SelectUnserved = `SELECT ` + PaymentColumns + ` FROM payments WHERE payer = ? AND route = ? AND is_unserved = 1
		AND chain_id = ? AND asset = ? AND amount = ? AND plan = ? AND host = ?
		ORDER BY created_at, id LIMIT ?`
	// SelectPlans takes PlanValues.
	SelectPlans = `SELECT ` + PaymentColumns + ` FROM payments WHERE payer = ? AND plan_until > 0 AND plan_until > ?
		AND route = ? AND host = ? AND delivery = 'delivered' ORDER BY plan_until DESC, id LIMIT ?`
	// SelectAudit takes the id twice.
	SelectAudit = `SELECT ` + EntryColumns + ` FROM audit WHERE payment_id = ?
		UNION ALL SELECT ` + EntryColumns + ` FROM audit_archive WHERE payment_id = ? ORDER BY version`
	// SelectCounts gives each state with its number.
	SelectCounts = `SELECT state, count(*) FROM payments GROUP BY state`

	// SelectDue takes now, now, limit.
	SelectDue = `SELECT ` + PaymentColumns + ` FROM payments WHERE is_open = 1 AND check_at <= ? AND hold_until <= ?
		ORDER BY check_at, created_at, id LIMIT ?`
	// Hide takes until when, and the id.
	Hide = `UPDATE payments SET check_at = ? WHERE id = ?`

	// SelectStanding gives the Until of the last anchor (0: none), above which all times must be, and whether a copy
	// into this store is under way (0 or 1): see ScanStanding.
	SelectStanding = `SELECT COALESCE((SELECT until_at FROM anchors ORDER BY sequence DESC LIMIT 1), 0),
		(SELECT count(*) FROM meta WHERE name = 'incomplete')`
)

// ScanStanding reads what SelectStanding gives.
func ScanStanding(row Row, until *time.Time, incomplete *bool) error {
	return row.Scan(Instant{until}, Boolean{incomplete})
}

// ScanPayment reads PaymentColumns, and more.
func ScanPayment(row Row, p *ledger.Payment, more ...any) error {
	return row.Scan(append([]any{
		&p.ID,
		Natural{&p.Version},
		Natural{&p.ChainID},
		Fixed(p.Asset[:]), Fixed(p.Payer[:]), Fixed(p.Nonce[:]),
		Fixed(p.PayTo[:]),
		Decimal{&p.Amount},
		Natural{&p.ValidBefore},
		Fixed(p.HeaderHash[:]),
		&p.Binding.Route, &p.Binding.Plan, &p.Binding.Method, &p.Binding.Host, &p.Binding.URI, &p.Flow,
		Natural{&p.ClaimBlock},
		(*string)(&p.Settlement), (*string)(&p.Delivery), (*string)(&p.Refund), &p.Reason, Fixed(p.Transaction[:]),
		Natural{&p.Block},
		Fixed(p.BlockHash[:]),
		Boolean{&p.Final},
		Natural{&p.Hold.Fence},
		Instant{&p.Hold.Until},
		Instant{&p.PlanUntil},
		&p.ServedBy,
		Instant{&p.CreatedAt},
		Instant{&p.UpdatedAt},
		Instant{&p.SettledAt},
		Instant{&p.DeliveredAt},
	}, more...)...)
}

// PaymentValues are the arguments of ClaimPayment and InsertPayment. audit is the hash of the last entry of p's trail.
// It is due as soon as nobody holds it.
func PaymentValues(p *ledger.Payment, audit common.Hash) []any {
	values := make([]any, 0, 40)
	values = append(values,
		p.ID, p.ChainID, Octets(p.Asset[:]), Octets(p.Payer[:]), Octets(p.Nonce[:]),
		Octets(p.PayTo[:]), p.Amount.Dec(), p.ValidBefore, Octets(p.HeaderHash[:]),
		p.Binding.Route, p.Binding.Plan, p.Binding.Method, p.Binding.Host, p.Binding.URI, p.Flow, p.ClaimBlock)
	values = appendState(values, p, audit)
	return append(values, Micros(p.CreatedAt))
}

// ChangeValues are the arguments of UpdatePayment.
func ChangeValues(p *ledger.Payment, audit common.Hash) []any {
	return append(appendState(make([]any, 0, 23), p, audit), p.ID)
}

// appendState appends the version and the columns from settlement to audit_hash.
func appendState(values []any, p *ledger.Payment, audit common.Hash) []any {
	return append(values,
		p.Version, string(p.Settlement), string(p.Delivery), string(p.Refund), p.Reason, Octets(p.Transaction[:]), p.Block,
		Octets(p.BlockHash[:]), flag(p.Final),
		p.Hold.Fence, Micros(p.Hold.Until), Micros(p.PlanUntil), p.ServedBy,
		Micros(p.CreatedAt), Micros(p.UpdatedAt), Micros(p.SettledAt), Micros(p.DeliveredAt),
		string(p.State()), flag(p.Open()), flag(p.Unserved()), flag(p.Closed()), audit[:])
}

// Authorization are the arguments of SelectByAuth.
func Authorization(id x402.AuthorizationID) []any {
	return []any{id.ChainID, Octets(id.Asset[:]), Octets(id.Payer[:]), Octets(id.Nonce[:])}
}

// UnservedValues are the arguments of SelectUnserved.
func UnservedValues(like *ledger.Payment, limit int) []any {
	b := like.Binding
	return []any{
		Octets(like.Payer[:]), b.Route, like.ChainID, Octets(like.Asset[:]), like.Amount.Dec(),
		b.Plan, b.Host, max(limit, 0),
	}
}

// PlanValues are the arguments of SelectPlans.
func PlanValues(payer common.Address, now time.Time, route, host string, limit int) []any {
	return []any{Octets(payer[:]), Micros(now), route, host, max(limit, 0)}
}

// ScanEntry reads EntryColumns.
func ScanEntry(row Row, e *ledger.Entry) error {
	return row.Scan(
		&e.Payment, Natural{&e.Version}, Instant{&e.At}, (*string)(&e.Event), &e.Actor, &e.Reason,
		(*string)(&e.Settlement), (*string)(&e.Delivery), (*string)(&e.Refund), Natural{&e.Hold.Fence}, Instant{&e.Hold.Until},
		Fixed(e.Transaction[:]), Natural{&e.Block}, Fixed(e.BlockHash[:]), Instant{&e.PlanUntil}, &e.ServedBy,
		Fixed(e.Subject[:]), Fixed(e.Previous[:]), Fixed(e.Hash[:]),
	)
}

// EntryValues are the arguments of InsertEntry.
func EntryValues(e *ledger.Entry) []any {
	return []any{
		e.Payment, e.Version, Micros(e.At), string(e.Event), e.Actor, e.Reason,
		string(e.Settlement), string(e.Delivery), string(e.Refund), e.Hold.Fence, Micros(e.Hold.Until),
		Octets(e.Transaction[:]), e.Block, Octets(e.BlockHash[:]), Micros(e.PlanUntil), e.ServedBy,
		Octets(e.Subject[:]), Octets(e.Previous[:]), e.Hash[:],
	}
}

// Payments reads payments by a statement that gives PaymentColumns.
func Payments(run Query, query string, args ...any) ([]ledger.Payment, error) {
	return rows(run, func(row Row, p *ledger.Payment) error { return ScanPayment(row, p) }, query, args...)
}

// Audit reads the trail of a payment; ErrNotFound.
func Audit(run Query, id string) ([]ledger.Entry, error) {
	got, err := rows(run, ScanEntry, SelectAudit, id, id)
	if err == nil && len(got) == 0 { // a payment has at least the entry of its claim
		err = ledger.ErrNotFound
	}
	return got, err
}

// Counts implements ledger.Books.
func Counts(run Query) (map[ledger.State]int64, error) {
	got := map[ledger.State]int64{}
	err := run(SelectCounts, func(row Row) error {
		var state string
		var n int64
		if err := row.Scan(&state, &n); err != nil {
			return err
		}
		got[ledger.State(state)] = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// rows collects what a statement gives.
func rows[T any](run Query, scan func(Row, *T) error, query string, args ...any) ([]T, error) {
	var got []T
	err := run(query, func(row Row) error {
		var one T
		if err := scan(row, &one); err != nil {
			return err
		}
		got = append(got, one)
		return nil
	}, args...)
	if err != nil {
		return nil, err
	}
	return got, nil
}

// end is behind all times.
const end = int64(math.MaxInt64)
