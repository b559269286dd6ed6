package sqlstore

import (
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// selectDerived takes the id before and limit, and gives payments with what was derived from them and from their trails when
// they were written, and the hash of the entry that made them what they are.
const selectDerived = `SELECT ` + PaymentColumns + `, state, is_open, is_unserved, is_closed, audit_hash,
	COALESCE((SELECT hash FROM audit e WHERE e.payment_id = payments.id AND e.version = payments.version),
		(SELECT hash FROM audit_archive e WHERE e.payment_id = payments.id AND e.version = payments.version))
	FROM payments WHERE id > ? ORDER BY id LIMIT ?`

// derived is what selectDerived gives of a payment.
type derived struct {
	p                      ledger.Payment
	state                  string
	open, unserved, closed int64
	audit, last            common.Hash
}

// EachMisfiled implements ledger.Filed. No query is open while f runs.
func EachMisfiled(run Query, f func(id, how string) error) error {
	const page = 500
	for after := ""; ; {
		got, err := rows(run, func(row Row, d *derived) error {
			return ScanPayment(row, &d.p, &d.state, &d.open, &d.unserved, &d.closed, Fixed(d.audit[:]), Fixed(d.last[:]))
		}, selectDerived, after, page)
		if err != nil {
			return err
		}
		for i := range got {
			if how := got[i].wrong(); how != "" {
				if err := f(got[i].p.ID, how); err != nil {
					return err
				}
			}
		}
		if len(got) < page {
			return nil
		}
		after = got[len(got)-1].p.ID
	}
}

// wrong says what d is filed as that its payment is not; empty if it is as it should be.
func (d *derived) wrong() string {
	for _, c := range []struct {
		column    string
		got, want any
	}{
		{"state", d.state, string(d.p.State())},
		{"is_open", d.open, flag(d.p.Open())},
		{"is_unserved", d.unserved, flag(d.p.Unserved())},
		{"is_closed", d.closed, flag(d.p.Closed())},
		{"audit_hash", d.audit, d.last},
	} {
		if c.got != c.want {
			return fmt.Sprintf("%s is %v, not %v", c.column, c.got, c.want)
		}
	}
	return ""
}
