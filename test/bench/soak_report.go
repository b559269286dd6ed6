package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// soakReport is what a long run has shown.
type soakReport struct {
	Machine      machine        `json:"machine"`
	Store        string         `json:"store"`
	Seconds      float64        `json:"seconds"`
	Block        float64        `json:"block_seconds"`
	Clients      int            `json:"clients"`
	Payers       int            `json:"payers"`
	Wallets      int            `json:"wallets"`
	PerSecond    float64        `json:"payments_per_second"`
	Transactions int            `json:"transactions"`
	Latency      latencies      `json:"paid"` // of some of the paid requests
	Verdict      soakVerdict    `json:"verdict"`
	Refusals     map[string]int `json:"refusals"` // what clients were told beside what they got
	Ledger       float64        `json:"ledger_mib"`
	Flat         flat           `json:"memory"`
	Samples      []sample       `json:"samples"`
}

// verdict is an error if something is wrong, or nothing was shown.
func (r *soakReport) verdict() (err error) {
	if !r.Verdict.ok() {
		err = errors.Join(err, errors.New("chain, ledger and clients disagree"))
	}
	if !r.Flat.OK {
		err = errors.Join(err, errors.New("the memory of Caddy has grown"))
	}
	if v := &r.Verdict; v.Transfers == 0 || v.Served == 0 {
		err = errors.Join(err, errors.New("nothing was sold: this has shown nothing"))
	}
	return err
}

func (r *soakReport) save(file string) error {
	out, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(file, append(out, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	return nil
}

func (r *soakReport) print(out io.Writer) {
	m, v := &r.Machine, &r.Verdict
	_, _ = fmt.Fprintf(out, "\n%s, %d cores, %s, %s, revision %s\n", m.CPU, m.Cores, m.OS, m.Go, or(m.Revision, "unknown"))
	t := newTable(out, fmt.Sprintf("%.0f s: %d clients with %d accounts, %d wallets, a block every %g s, store %s", r.Seconds, r.Clients, r.Payers, r.Wallets, r.Block, r.Store),
		1, "", "")
	row := func(what string, n int) { t.AppendRow([]any{what, number(float64(n), 0)}) }
	row("authorizations sent", v.Wanted)
	row("  served", v.Served)
	for _, flow := range flows {
		row("    by flow "+flow, v.ByFlow[flow])
	}
	row("    by an earlier payment, whose client had left", v.Resumed)
	row("  the upstream failed: nothing charged", v.Void)
	row("  the upstream failed: held for refund", v.Held)
	row("  refused", v.Refused)
	row("  answer lost with a connection that was given up", v.Used)
	row("  left by their client for good", v.Left)
	t.AppendSeparator()
	row("transfers on chain", v.Transfers)
	row("transactions", r.Transactions)
	t.AppendRow([]any{"transfers in a transaction", number(ratio(float64(v.Transfers), float64(r.Transactions)), 1)})
	t.AppendRow([]any{"transfers per second", number(r.PerSecond, 1)})
	t.AppendRow([]any{"paid request: p50, p95, p99 ms", fmt.Sprintf("%.0f, %.0f, %.0f", r.Latency.P50, r.Latency.P95, r.Latency.P99)})
	t.AppendSeparator()
	row("payments in the ledger", v.Payments)
	row("  settled", v.Settled)
	for _, state := range slices.Sorted(maps.Keys(v.States)) {
		row("  "+string(state), v.States[state])
	}
	row("trails verified", v.Trails)
	t.AppendRow([]any{"files of the ledger, MiB", number(r.Ledger, 0)})
	t.AppendSeparator()
	for _, kind := range []struct {
		what string
		n    int
	}{{"lost", v.Lost}, {"doubled", v.Doubled}, {"served for nothing", v.Free}, {"disagreements", v.Discord}, {"never ended", v.Stuck}, {"not looked after in time", v.Behind}} {
		t.AppendRow([]any{kind.what, kind.n})
	}
	t.Render()
	r.printMemory(out)
	for _, why := range slices.Sorted(maps.Keys(r.Refusals)) {
		_, _ = fmt.Fprintf(out, "%d times clients were told: %s\n", r.Refusals[why], why)
	}
	for _, wrong := range v.Wrong {
		_, _ = fmt.Fprintln(out, "WRONG:", wrong)
	}
}

// printMemory shows some of the samples: as many as fit a page.
func (r *soakReport) printMemory(out io.Writer) {
	t := newTable(out, "Memory and files, MiB", 0,
		"s", "served", "on chain", "Caddy: heap after GC", "resident", "goroutines", "ledger", "the chain", "the clients", "CPU")
	const rows = 20
	for i := range min(rows, len(r.Samples)) {
		s := &r.Samples[(i+1)*len(r.Samples)/min(rows, len(r.Samples))-1]
		t.AppendRow([]any{
			number(s.Seconds, 0), number(float64(s.Served), 0), number(float64(s.Transfers), 0), number(s.Heap, 1), number(s.Resident, 0), s.Goroutines,
			number(s.Ledger, 0), number(s.Chain, 0), number(s.Client, 0), shares(s.CPU),
		})
	}
	t.Render()
	f := &r.Flat
	is := "flat"
	if !f.OK {
		is = "NOT FLAT"
	}
	_, _ = fmt.Fprintf(out, "Caddy's memory is %s: heap %.1f MiB in the second quarter, %.1f in the last (lowest readings; a tenth and 4 MiB more are allowed); resident %.1f and %.1f (medians; a fifth and 32 MiB)\n",
		is, f.SecondHeap, f.LastHeap, f.SecondResident, f.LastResident)
}
