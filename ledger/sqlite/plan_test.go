package sqlite_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

func listStatement(state ledger.State, payer byte) string {
	query, _ := sqlstore.ListStatement(ledger.Query{State: state, Payer: common.Address{payer}})
	return query
}

// What requests, workers and operators ask is found by indexes, in the order in which it is wanted: its cost does not
// grow with the ledger. SQLite names the indexes of PRIMARY KEY and UNIQUE itself.
func TestPlans(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
	for _, tt := range []struct {
		name, query string
		want        []string // indexes that the plan uses
		scans       string   // what it may go through as a whole
	}{
		{name: "Payment", query: sqlstore.SelectByID, want: []string{"sqlite_autoindex_payments_1 (id=?)"}},
		{name: "ByAuthorization", query: sqlstore.SelectByAuth, want: []string{"(chain_id=? AND asset=? AND payer=? AND nonce=?)"}},
		{name: "Unserved", query: sqlstore.SelectUnserved, want: []string{"payments_unserved (payer=? AND route=?)"}},
		{name: "LivePlans", query: sqlstore.SelectPlans, want: []string{"payments_plans (payer=? AND plan_until>?)"}},
		{name: "Audit", query: sqlstore.SelectAudit, want: []string{"sqlite_autoindex_audit_1 (payment_id=?)", "sqlite_autoindex_audit_archive_1 (payment_id=?)"}},
		{name: "Lease", query: sqlstore.SelectDue, want: []string{"payments_due (check_at<?)"}},
		{name: "hiding", query: sqlstore.Hide, want: []string{"sqlite_autoindex_payments_1 (id=?)"}},
		{name: "the last anchor's time", query: sqlstore.SelectStanding, want: []string{"sqlite_autoindex_meta_1 (name=?)"}, scans: "SCAN CONSTANT ROW; SCALAR SUBQUERY 1; SCAN anchors USING INDEX sqlite_autoindex_anchors_1"},
		{name: "Nonce", query: sqlstore.SelectNonce, want: []string{"sqlite_autoindex_wallets_1 (chain_id=? AND address=?)"}},
		{name: "Record, by hash", query: sqlstore.SelectByHash, want: []string{"sqlite_autoindex_transactions_1 (chain_id=? AND hash=?)"}},
		{name: "Record, by nonce", query: sqlstore.SelectByNonce, want: []string{"transactions_nonce (chain_id=? AND wallet=? AND nonce=?)"}},
		{name: "Record, seq", query: sqlstore.InsertCarried, want: []string{"sqlite_autoindex_transaction_payments_1 (payment_id=?)"}},
		{name: "Transactions", query: sqlstore.SelectByPayment, want: []string{
			"sqlite_autoindex_transaction_payments_1 (payment_id=?)", "sqlite_autoindex_transactions_1 (chain_id=? AND hash=?)",
			"sqlite_autoindex_transaction_archive_1 (chain_id=? AND hash=?)",
		}},
		{name: "Reservation", query: sqlstore.SelectReservation, want: []string{"sqlite_autoindex_reservations_1 (key=?)"}},
		{name: "KeepAnswer", query: sqlstore.KeepAnswer, want: []string{"sqlite_autoindex_reservations_1 (key=?)"}},
		{name: "Draw", query: sqlstore.SelectAllowance, want: []string{"sqlite_autoindex_allowances_1 (key=?)"}},
		{name: "EachAllowance", query: sqlstore.SelectAllowances, want: []string{"sqlite_autoindex_allowances_1 (key>?)"}},
		{name: "Sweep, allowances", query: sqlstore.SweepAllowances, want: []string{"allowances_expiry (expires_at<?)"}},
		{name: "Object", query: sqlstore.SelectObject, want: []string{"sqlite_autoindex_objects_1 (kind=? AND id=?)"}},
		{name: "PutObject", query: sqlstore.ChangeObject, want: []string{"sqlite_autoindex_objects_1 (kind=? AND id=?)"}},
		{name: "DeleteObject", query: sqlstore.RemoveObject, want: []string{"sqlite_autoindex_objects_1 (kind=? AND id=?)"}},
		{name: "Objects", query: sqlstore.SelectObjects, want: []string{"sqlite_autoindex_objects_1 (kind=? AND id>?)"}},
		{name: "Objects of a group", query: sqlstore.SelectGroup, want: []string{"objects_group (kind=? AND group_id=? AND id>?)"}},
		{name: "DueObjects", query: sqlstore.SelectDueObjects, want: []string{"objects_due (kind=? AND due_at>? AND due_at<?)"}},
		{name: "EachObject", query: sqlstore.SelectEveryObject, want: []string{"sqlite_autoindex_objects_1 ((kind,id)>(?,?))"}},
		{name: "Sweep, objects", query: sqlstore.SweepObjects, want: []string{"objects_expiry (expires_at>? AND expires_at<?)", "sqlite_autoindex_objects_1 (kind=? AND id=?)"}},
		{name: "EachReservation", query: sqlstore.SelectReservations, want: []string{"sqlite_autoindex_reservations_1 (key>?)"}},
		{name: "Revoked", query: sqlstore.SelectRevocations, want: []string{"revocations USING INTEGER PRIMARY KEY (rowid>?)"}},
		{name: "Revoke", query: sqlstore.OverrideRevocation, want: []string{"sqlite_autoindex_revocations_1 (id=?)"}},
		{name: "Sweep, revocations", query: sqlstore.SweepRevocations, want: []string{"revocations_end (until_at<?)"}},
		{name: "Sweep, reservations", query: sqlstore.SweepReservations, want: []string{"reservations_expiry (expires_at<?)"}},
		{name: "Sweep, what is closed", query: sqlstore.SelectClosed, want: []string{"payments_closed (updated_at<?)"}},
		{name: "Sweep, trails", query: sqlstore.ArchiveTrail, want: []string{"sqlite_autoindex_audit_1 (payment_id=?)"}},
		{name: "Sweep, old trails", query: sqlstore.ForgetTrail, want: []string{"sqlite_autoindex_audit_1 (payment_id=?)"}},
		{name: "Sweep, raw", query: sqlstore.ArchiveRaw, want: []string{
			"sqlite_autoindex_transaction_payments_1 (payment_id=?)", "sqlite_autoindex_transactions_1 (chain_id=? AND hash=?)",
			"sqlite_autoindex_transaction_payments_2 (chain_id=? AND hash=?)", "sqlite_autoindex_payments_1 (id=?)",
		}},
		{name: "Sweep, old raw", query: sqlstore.ForgetRaw, want: []string{"sqlite_autoindex_transactions_1 (chain_id=? AND hash=?)", "sqlite_autoindex_transaction_payments_1 (payment_id=?)"}},
		{name: "List", query: listStatement("", 0), want: []string{"payments_list ((created_at,id)<(?,?))"}},
		{name: "List by state", query: listStatement("PAID", 0), want: []string{"payments_state (state=? AND (created_at,id)<(?,?))"}},
		{name: "List by payer", query: listStatement("", 1), want: []string{"payments_payer (payer=? AND (created_at,id)<(?,?))"}},
		{name: "List by both", query: listStatement("PAID", 1), want: []string{"payments_payer (payer=? AND (created_at,id)<(?,?))"}},
		{name: "List of what a payer owes", query: listStatement("OWED", 1), want: []string{"payments_owed (payer=? AND (created_at,id)<(?,?))"}},
		{name: "List of what is owed", query: listStatement("OWED", 0), want: []string{"payments_state (state=? AND (created_at,id)<(?,?))"}},
		{name: "Counts", query: sqlstore.SelectCounts, scans: "SCAN payments USING COVERING INDEX payments_state"},
		{name: "Entries", query: sqlstore.SelectEntries, want: []string{"INDEX audit_at ((at,payment_id,version)>(?,?,?) AND at<?)", "INDEX audit_archive_at ((at,payment_id,version)>(?,?,?) AND at<?)"}},
		{name: "AddAnchor", query: sqlstore.CountEntries, want: []string{"COVERING INDEX audit_at (at>? AND at<?)", "COVERING INDEX audit_archive_at (at>? AND at<?)"}, scans: "SCAN CONSTANT ROW"},
		{name: "Anchors", query: sqlstore.SelectAnchors, want: []string{"sqlite_autoindex_anchors_1 (sequence>?)"}},
		{name: "LastAnchor", query: sqlstore.SelectLastAnchor, scans: "SCAN anchors USING INDEX sqlite_autoindex_anchors_1"},
		{name: "Records", query: sqlstore.SelectPage, want: []string{"sqlite_autoindex_payments_1 (id>?)"}},
		{name: "Records, trails", query: sqlstore.SelectTrails, want: []string{"sqlite_autoindex_audit_1 (payment_id>? AND payment_id<?)", "sqlite_autoindex_audit_archive_1 (payment_id>? AND payment_id<?)"}},
		{name: "Records, transactions", query: sqlstore.SelectRecorded, want: []string{
			"sqlite_autoindex_transaction_payments_1 (payment_id>? AND payment_id<?)", "sqlite_autoindex_transactions_1 (chain_id=? AND hash=?)",
		}},
		{name: "Wallets", query: sqlstore.SelectWallets, scans: "SCAN wallets USING INDEX sqlite_autoindex_wallets_1"},
		{name: "Wallets, freed", query: sqlstore.SelectFreed, want: []string{"transactions_freed (chain_id=? AND wallet=?)"}},
		{name: "Import", query: sqlstore.SelectCarriedAs, want: []string{"sqlite_autoindex_transaction_payments_1 (payment_id=?)"}},
	} {
		plan, err := s.Plan(tt.query)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(plan, want) {
				t.Errorf("%s does not use %s: %s", tt.name, want, plan)
			}
		}
		rest := plan
		if tt.scans != "" {
			if rest = strings.Replace(plan, tt.scans, "", 1); rest == plan {
				t.Errorf("%s: no %s: %s", tt.name, tt.scans, plan)
			}
		}
		if strings.Contains(rest, "SCAN ") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s goes through all there is, or sorts it: %s", tt.name, plan)
		}
	}
}
