package postgres

import (
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Question is a statement that must be fast in a ledger of any size.
type Question struct {
	Name string
	SQL  string
	Args []any
	// Indexes are what its plan must use.
	Indexes []string
	// Ordered: its rows come in the order of an index, so that a page costs no more than its rows.
	Ordered bool
	// Whole: it goes through all of an index by its nature.
	Whole bool
}

// Questions are all statements of requests, workers and operators, about p and at the time now.
func Questions(p ledger.Payment, now time.Time) []Question {
	at := sqlstore.Micros(now)
	tx := ledger.Transaction{ChainID: p.ChainID, Hash: common.Hash{1}, Wallet: common.Address{1}}
	chain, hash, wallet := tx.ChainID, sqlstore.Octets(tx.Hash[:]), sqlstore.Octets(tx.Wallet[:])
	other, e := p, ledger.NewEntry(&p, ledger.Change{}, common.Hash{1})
	other.ID, other.Nonce = p.ID+"x", common.Hash{1}
	e.Version += 100
	entry := e
	entry.Payment = other.ID
	key := common.Hash{1}
	list := func(q ledger.Query) (string, []any) {
		q.Limit = 50
		q.Before = ledger.Mark{At: now, Payment: p.ID}
		return sqlstore.ListStatement(q)
	}
	var all []Question
	ask := func(name, sql string, args []any, indexes ...string) {
		all = append(all, Question{Name: name, SQL: numbered(sql), Args: args, Indexes: indexes})
	}
	join := func(lists ...[]any) (args []any) {
		for _, l := range lists {
			args = append(args, l...)
		}
		return args
	}
	ask("Claim", claim, join(sqlstore.PaymentValues(&other, e.Hash), sqlstore.EntryValues(&entry), []any{at, int64(1) << 62}))
	ask("Update, read", selectForUpdate, []any{p.ID}, "payments_pkey", "anchors_pkey")
	ask("Update, write", update(1), join(sqlstore.ChangeValues(&p, e.Hash), []any{p.Version}, sqlstore.EntryValues(&e), []any{at, int64(1) << 62}), "payments_pkey")
	ask("Payment", sqlstore.SelectByID, []any{p.ID}, "payments_pkey")
	ask("ByAuthorization", sqlstore.SelectByAuth, sqlstore.Authorization(p.AuthorizationID), "payments_authorization")
	ask("Unserved", sqlstore.SelectUnserved, sqlstore.UnservedValues(&p, 10), "payments_unserved")
	ask("LivePlans", sqlstore.SelectPlans, sqlstore.PlanValues(p.Payer, now, p.Binding.Route, p.Binding.Host, 10), "payments_plans")
	ask("Audit", sqlstore.SelectAudit, []any{p.ID, p.ID}, "audit_pkey", "audit_archive_pkey")
	ask("Lease", lease, []any{at, 20, int64(30_000_000)}, "payments_due", "payments_pkey")
	ask("Recheck", recheck, []any{at, int64(30_000_000), p.ID, p.ID}, "payments_pkey")
	ask("Nonce", sqlstore.SelectNonce, []any{chain, wallet}, "wallets_pkey")
	ask("Record, wallet", lockNonce, []any{chain, wallet}, "wallets_pkey")
	ask("Record, payments", lockPayments, []any{[]string{p.ID, other.ID}}, "payments_pkey")
	ask("Record, hash", isRecorded, []any{chain, hash}, "transactions_pkey")
	ask("Record, nonce", sqlstore.SelectByNonce, []any{chain, wallet, int64(1)}, "transactions_nonce")
	ask("Transactions", sqlstore.SelectByPayment, []any{p.ID}, "transaction_payments_pkey", "transactions_pkey")
	ask("Reservation", sqlstore.SelectReservation, []any{key[:], at}, "reservations_pkey")
	ask("KeepAnswer", keep, []any{[]byte{}, at, key[:], p.ID, at, at, int64(1) << 62}, "reservations_pkey")
	ask("Revoked", sqlstore.SelectRevocations, []any{1, 100}, "revocations_pkey")
	ask("Sweep, revocations", sqlstore.SweepRevocations, []any{at, 100}, "revocations_end", "revocations_pkey")
	ask("Draw, read", sqlstore.SelectAllowance, []any{key[:]}, "allowances_pkey")
	allowance := ledger.Allowance{Key: key}
	ask("Draw, write", storeAllowance, append(sqlstore.StoreAllowanceValues(&allowance, &allowance), at, int64(1)<<62), "allowances_pkey")
	ask("Sweep, allowances", sqlstore.SweepAllowances, []any{at, 100, at}, "allowances_expiry", "allowances_pkey")
	object := ledger.Object{Kind: "event", ID: "e1", Group: "g1", Version: 2, Body: []byte("{}")}
	ask("Object", sqlstore.SelectObject, []any{"event", "e1", at}, "objects_pkey")
	ask("PutObject, new", makeObject, append(sqlstore.ObjectValues(&object), at, at, int64(1)<<62))
	ask("PutObject", changeObject, append(sqlstore.ChangeObjectValues(&object, now), at, int64(1)<<62), "objects_") // its key, or its group, kind and id
	ask("DeleteObject", removeObject, []any{"event", "e1", int64(1), at, at, int64(1) << 62}, "objects_pkey")
	ask("Objects", sqlstore.SelectObjects, []any{"event", "e1", at, 100}, "objects_pkey")
	ask("Objects of a group", sqlstore.SelectGroup, []any{"event", "g1", "e1", at, 100}, "objects_group")
	ask("DueObjects", sqlstore.SelectDueObjects, []any{"event", at, at, 100}, "objects_due")
	ask("EachObject", sqlstore.SelectEveryObject, []any{"event", "e1", at, 50}, "objects_pkey")
	ask("Sweep, objects", sqlstore.SweepObjects, []any{at, 100, at}, "objects_expiry", "objects_pkey")
	ask("Sweep, reservations", sqlstore.SweepReservations, []any{at, 100, at}, "reservations_expiry", "reservations_pkey")
	ask("Sweep, closed", sqlstore.SelectClosed+" FOR UPDATE SKIP LOCKED", []any{at, 100}, "payments_closed")
	sql, args := list(ledger.Query{})
	ask("List", sql, args, "payments_list")
	sql, args = list(ledger.Query{State: ledger.StateRefundPending})
	ask("List of a state", sql, args, "payments_state")
	sql, args = list(ledger.Query{Payer: p.Payer})
	ask("List of a payer", sql, args, "payments_payer")
	sql, args = list(ledger.Query{State: ledger.StateOwed, Payer: p.Payer})
	ask("List of what a payer owes", sql, args, "payments_owed")
	ask("Entries", selectEntries, entriesValues(ledger.Mark{At: now.Add(-time.Hour), Payment: "\xff"}, now, 1000), "audit_at", "audit_archive_at")
	ask("AddAnchor", sqlstore.CountEntries, []any{at - 60_000_000, at, at - 60_000_000, at}, "audit_at", "audit_archive_at")
	ask("Anchors", sqlstore.SelectAnchors, []any{int64(0), 100}, "anchors_pkey")
	ask("LastAnchor", sqlstore.SelectLastAnchor, nil, "anchors_pkey")
	ask("Records", sqlstore.SelectPage, []any{p.ID, 500}, "payments_pkey")
	ask("Records, trails", sqlstore.SelectTrails, []any{p.ID, p.ID, p.ID, p.ID}, "audit_pkey", "audit_archive_pkey")
	ask("Records, sent", sqlstore.SelectRecorded, []any{p.ID, p.ID}, "transaction_payments_pkey", "transactions_pkey")
	ask("Counts", sqlstore.SelectCounts, nil, "payments_state")
	all[len(all)-1].Whole = true
	for i := range all {
		all[i].Ordered = slices.Contains([]string{
			"Unserved", "LivePlans", "Sweep, closed", "List", "List of a state", "List of a payer", "Entries", "Anchors", "LastAnchor", "Records",
			"Objects", "Objects of a group", "DueObjects", "EachObject",
		}, all[i].Name)
	}
	return all
}
