package chaos

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// report prints what happened, and fails the test if something must not have happened.
func (s *scene) report(j *judgement) {
	s.table(j)
	for _, in := range s.instances {
		for _, death := range append(in.crashes(), in.alarms()...) {
			s.t.Error(death)
		}
	}
	for _, err := range s.mischief.errs {
		s.t.Errorf("a fault could not be made or mended: %v", err)
	}
	if len(j.chain.transfers) == 0 || j.delivered == 0 {
		s.t.Error("nothing was bought: this has shown nothing")
	}
	for i, v := range j.violations {
		if i == 20 {
			s.t.Errorf("%d more violations", len(j.violations)-i)
			break
		}
		s.t.Errorf("%s: %s", strings.ToUpper(v.kind), v.text)
		s.file(j, i, v)
	}
	if s.t.Failed() {
		s.keep("faults.txt", strings.Join(s.mischief.history, "\n")+"\n")
		s.say("seed %d; everything to look into is in %s", s.seed, s.dir)
	}
}

func (s *scene) table(j *judgement) {
	count := make(map[string]int)
	for _, v := range j.violations {
		count[v.kind]++
	}
	wanted, attempts, outcomes := 0, 0, make(map[outcome]int)
	for _, p := range j.payers {
		wanted += len(p.intents)
		attempts += len(p.attempts)
		for _, in := range p.intents {
			outcomes[in.outcome]++
		}
	}
	sent := j.transactions()
	rows := []struct {
		what string
		n    int
	}{
		{"things wanted", wanted},
		{"  served", outcomes[served]},
		{"    by a pass's token", j.byToken},
		{"    unknown at first, then resolved", j.resolved},
		{"  refused as a debtor", outcomes[refusedDebtor]},
		{"  paid for a debt", outcomes[repaid]},
		{"  answer lost on the way", outcomes[lostAnswer] - j.elsewhere},
		{"  its payment has served another thing", j.elsewhere},
		{"  left by their client", outcomes[abandoned]},
		{"paid requests sent", attempts},
		{"requests that reached the upstream", len(j.forwards)},
		{"payments claimed", len(j.records) - j.transfersBack()},
		{"  void or failed: nothing charged", j.unused},
		{"    the upstream had refused it", j.voided},
		{"  served before they were paid", j.lent},
		{"    most of it at once, in cents", cents(&j.mostLent)},
		{"    made good by another payment", j.madeGood},
		{"    not paid", j.unpaid},
		{"      lost to the seller, in cents", cents(&j.loss)},
		{"requests of debtors that were refused", j.debtorsRefused},
		{"  settled", j.settled},
		{"    served", j.delivered},
		{"      of these, the answer broke off", j.onTheWay},
		{"    paid back", j.refunded},
		{"    not paid back", j.refundable},
		{"    forgotten and found again", j.quarantined},
		{"transfers on chain", len(j.chain.transfers)},
		{"transfers back on chain", len(j.chain.backs)},
		{"units of money that are missing or too many", int(j.off.Int64())},
		{"transactions recorded", sent.all},
		{"  nonces of the gas wallets", sent.nonces},
		{"  that carry several payments", sent.batches},
		{"  that replace another with higher fees", sent.replacements},
		{"  that free a nonce", sent.freed},
		{"audit entries", int(j.verified.Entries)},
		{"  fixed by anchors", int(j.verified.Entries - j.verified.Unanchored)},
		{"lost", count[lost]},
		{"doubled", count[doubled]},
		{"other violations", len(j.violations) - count[lost] - count[doubled]},
	}
	s.say("\n%s: what happened", s.store)
	for _, r := range rows {
		s.say("  %-42s %6d", r.what, r.n)
	}
	s.say("%s: what was broken", s.store)
	for _, kind := range slices.Sorted(maps.Keys(s.mischief.counts)) {
		s.say("  %-42s %6d", kind, s.mischief.counts[kind])
	}
	s.say("")
}

// transactions counts what was recorded for the gas wallets.
type transactions struct{ all, nonces, batches, replacements, freed int }

func (j *judgement) transactions() (n transactions) {
	type place struct {
		wallet common.Address
		nonce  uint64
	}
	seen, carried := make(map[common.Hash]bool), make(map[place]int)
	add := func(tx *ledger.Transaction) {
		if seen[tx.Hash] {
			return
		}
		seen[tx.Hash] = true
		n.all++
		if len(tx.Payments) == 0 {
			n.freed++
			return
		}
		if len(tx.Payments) > 1 {
			n.batches++
		}
		carried[place{tx.Wallet, tx.Nonce}]++
	}
	for i := range j.records {
		for k := range j.records[i].Transactions {
			add(&j.records[i].Transactions[k])
		}
	}
	for i := range j.wallets {
		n.nonces += int(j.wallets[i].NextNonce)
		for k := range j.wallets[i].Freed {
			add(&j.wallets[i].Freed[k])
		}
	}
	for _, times := range carried {
		n.replacements += times - 1
	}
	return n
}

// cents are hundredths of a unit of the token.
func cents(amount *uint256.Int) int { return int(amount.Uint64() / 10_000) }

// file writes down all that is known of a violation.
func (s *scene) file(j *judgement, n int, v violation) {
	type line struct {
		At     time.Time `json:"at"`
		Serial int       `json:"serial"`
		Intent string    `json:"intent"`
		Status int       `json:"status"`
	}
	doc := map[string]any{"kind": v.kind, "text": v.text, "seed": s.seed}
	if r := j.byID[v.payment]; r != nil {
		doc["record"] = r
		doc["requests"] = j.byPayment[v.payment]
		var forwarded []line
		for _, f := range j.routed[v.payment] {
			forwarded = append(forwarded, line{f.at, f.serial, f.intent, f.status})
		}
		doc["forwarded"] = forwarded
	}
	if v.payer >= 0 {
		doc["client"] = j.payers[v.payer].attempts
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		s.t.Error(err)
		return
	}
	s.keep("violation-"+string(rune('a'+n))+".json", string(b))
}

func (s *scene) keep(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Error(err)
	}
}
