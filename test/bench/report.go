package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// report is all that was measured.
type report struct {
	Machine  machine    `json:"machine"`
	Store    string     `json:"store"`
	Flow     string     `json:"flow"`
	GasLimit int        `json:"block_gas_limit"`
	Hot      *hotReport `json:"hot,omitempty"`
	// Cells are what is published: of ours the medians of the runs, of the peer its best run.
	Cells []figures `json:"cells"`
	Runs  []figures `json:"runs"`
}

func (r *report) save(file string) error {
	r.Cells = published(r.Runs)
	out, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(file, append(out, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	return nil
}

// published sums up the runs of each cell, in the order in which they were measured first.
func published(runs []figures) (cells []figures) {
	type key struct {
		system string
		block  float64
		payers int
	}
	by := map[key][]figures{}
	var order []key
	for _, f := range runs {
		k := key{f.System, f.Block, f.Payers}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], f)
	}
	for _, k := range order {
		if k.system == partPeer {
			cells = append(cells, best(by[k]))
		} else {
			cells = append(cells, medians(by[k]))
		}
	}
	return cells
}

// best is the run with the most payments per second.
func best(runs []figures) figures {
	return slices.MaxFunc(runs, func(a, b figures) int {
		switch {
		case a.PerSecond < b.PerSecond:
			return -1
		case a.PerSecond > b.PerSecond:
			return 1
		}
		return 0
	})
}

// medians takes the median of each figure, and adds up what may not be there at all.
func medians(runs []figures) figures {
	if len(runs) == 1 {
		return runs[0]
	}
	of := func(pick func(*figures) float64) float64 {
		all := make([]float64, len(runs))
		for i := range runs {
			all[i] = pick(&runs[i])
		}
		return median(all)
	}
	f := figures{
		System: runs[0].System, Block: runs[0].Block, Payers: runs[0].Payers,
		Sales:        int(of(func(f *figures) float64 { return float64(f.Sales) })),
		Success:      of(func(f *figures) float64 { return f.Success }),
		Seconds:      of(func(f *figures) float64 { return f.Seconds }),
		PerSecond:    of(func(f *figures) float64 { return f.PerSecond }),
		BlockWait:    of(func(f *figures) float64 { return f.BlockWait }),
		BlockLongest: of(func(f *figures) float64 { return f.BlockLongest }),
		Gas:          of(func(f *figures) float64 { return f.Gas }),
		GasRatio:     of(func(f *figures) float64 { return f.GasRatio }),
		Transactions: int(of(func(f *figures) float64 { return float64(f.Transactions) })),
		Resident:     of(func(f *figures) float64 { return f.Resident }),
		CPU:          map[string]float64{}, Failures: map[string]int{},
		Verdict: verdict{Unanswered: map[string]int{}},
	}
	for _, l := range []func(*figures) *latencies{
		func(f *figures) *latencies { return &f.Paid },
		func(f *figures) *latencies { return &f.Pair },
	} {
		*l(&f) = latencies{
			P50: of(func(f *figures) float64 { return l(f).P50 }),
			P95: of(func(f *figures) float64 { return l(f).P95 }),
			P99: of(func(f *figures) float64 { return l(f).P99 }),
		}
	}
	for i := range runs {
		f.add(&runs[i])
	}
	for name := range f.CPU {
		f.CPU[name] = of(func(f *figures) float64 { return f.CPU[name] })
	}
	return f
}

// add adds up what is counted over all runs.
func (f *figures) add(run *figures) {
	f.Reverted += run.Reverted
	f.SignedLate += run.SignedLate
	f.Verdict.Answered += run.Verdict.Answered
	f.Verdict.Transfers += run.Verdict.Transfers
	f.Verdict.Resumed += run.Verdict.Resumed
	f.Verdict.Wrong = append(f.Verdict.Wrong, run.Verdict.Wrong...)
	for why, n := range run.Verdict.Unanswered {
		f.Verdict.Unanswered[why] += n
	}
	for why, n := range run.Failures {
		f.Failures[why] += n
	}
	for name := range run.CPU {
		f.CPU[name] = 0
	}
}

// print writes tables.
func (r *report) print(out io.Writer) {
	m := &r.Machine
	_, _ = fmt.Fprintf(out, "\n%s, %d cores, %s, %s, revision %s, %s\n", m.CPU, m.Cores, m.OS, m.Go, or(m.Revision, "unknown"), m.When.Format(time.RFC3339))
	_, _ = fmt.Fprintf(out, "store %s, flow %s; fsync p50 %.2f, p99 %.2f ms; a claim by one caller p50 %.2f, p99 %.2f ms; blocks of %d million gas\n",
		r.Store, r.Flow, m.Fsync.P50, m.Fsync.P99, m.Commit.P50, m.Commit.P99, r.GasLimit/1_000_000)
	if r.Hot != nil {
		r.Hot.print(out)
	}
	cells := published(r.Runs)
	for _, block := range blocksOf(cells) {
		printCells(out, cells, block)
	}
	printTroubles(out, cells)
}

func newTable(out io.Writer, title string, left int, columns ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.SetTitle(title)
	t.AppendHeader(columns)
	var aligned []table.ColumnConfig
	for i := range columns {
		if i >= left {
			aligned = append(aligned, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.SetColumnConfigs(aligned)
	return t
}

func (h *hotReport) print(out io.Writer) {
	t := newTable(out, fmt.Sprintf("Without a payment: %d connections, and 1,000 requests a second", hotClients), 1,
		"path", "requests/s", "p50 ms", "p99 ms", "CPU us", "at 1,000/s: p50", "p99", "beside", "ratio", "CPU ratio", "added p99 ms")
	for _, f := range h.Paths {
		row := []any{
			f.Name, number(f.PerSecond, 0), number(f.Full.P50, 2), number(f.Full.P99, 2), number(f.CPU, 0),
			number(f.Paced.P50, 3), number(f.Paced.P99, 3), f.Beside, "", "", "",
		}
		if f.Beside != "" {
			row[8], row[9], row[10] = number(f.Ratio, 3), number(f.CPURatio, 3), fmt.Sprintf("%+.3f", f.AddedP99)
		}
		t.AppendRow(row)
	}
	_, _ = fmt.Fprintln(out)
	t.Render()
	_, _ = fmt.Fprintf(out, "memory of our Caddy: heap %.1f MiB before and %.1f MiB after %d requests, resident %.1f and %.1f MiB\n",
		h.Before.Heap, h.After.Heap, h.Requests, h.Before.Resident, h.After.Resident)
}

func blocksOf(cells []figures) (blocks []float64) {
	for _, f := range cells {
		if !slices.Contains(blocks, f.Block) {
			blocks = append(blocks, f.Block)
		}
	}
	return blocks
}

func printCells(out io.Writer, cells []figures, block float64) {
	t := newTable(out, "Payments, "+kind(time.Duration(block*float64(time.Second))), 1,
		"", "payers", "payments/s", "answered", "paid: p50", "p95", "p99 ms", "pair: p50", "p95", "p99 ms", "block wait ms",
		"gas each", "of lone", "tx", "CPU", "agrees")
	for _, system := range []string{partOurs, partPeer} {
		for _, f := range cells {
			if f.System != system || f.Block != block {
				continue
			}
			agrees := "yes"
			if len(f.Verdict.Wrong) > 0 {
				agrees = "NO"
			}
			t.AppendRow([]any{
				f.System, f.Payers, number(f.PerSecond, 1), fmt.Sprintf("%.1f %%", 100*f.Success),
				number(f.Paid.P50, 0), number(f.Paid.P95, 0), number(f.Paid.P99, 0),
				number(f.Pair.P50, 0), number(f.Pair.P95, 0), number(f.Pair.P99, 0), number(f.BlockWait, 0),
				number(f.Gas, 0), number(f.GasRatio, 2), f.Transactions, shares(f.CPU), agrees,
			})
		}
		t.AppendSeparator()
	}
	_, _ = fmt.Fprintln(out)
	t.Render()
}

// shares says how much of a core each process used.
func shares(cpu map[string]float64) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(cpu)) {
		all = append(all, fmt.Sprintf("%s %.2f", name, cpu[name]))
	}
	return strings.Join(all, " ")
}

// printTroubles says what went wrong, and where chain and answers differ.
func printTroubles(out io.Writer, cells []figures) {
	for i := range cells {
		f := &cells[i]
		where := fmt.Sprintf("%s, %s, %d payers", f.System, kind(time.Duration(f.Block*float64(time.Second))), f.Payers)
		for _, why := range slices.Sorted(maps.Keys(f.Failures)) {
			_, _ = fmt.Fprintf(out, "%s: %d sales failed: %s\n", where, f.Failures[why], why)
		}
		for _, why := range slices.Sorted(maps.Keys(f.Verdict.Unanswered)) {
			_, _ = fmt.Fprintf(out, "%s: %d payments moved money and were not answered 200: %s\n", where, f.Verdict.Unanswered[why], why)
		}
		if f.BlockLongest > 1500*f.Block {
			_, _ = fmt.Fprintf(out, "%s: between two blocks were %.1f s: the machine is too busy\n", where, f.BlockLongest/1000)
		}
		if f.Reverted > 0 {
			_, _ = fmt.Fprintf(out, "%s: %d transactions were reverted\n", where, f.Reverted)
		}
		for _, wrong := range f.Verdict.Wrong {
			_, _ = fmt.Fprintf(out, "%s: WRONG: %s\n", where, wrong)
		}
	}
}

func number(v float64, digits int) string {
	if v == 0 {
		return "-"
	}
	s := fmt.Sprintf("%.*f", digits, v)
	whole, rest, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}
