package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
)

const (
	// warmUp is how long a load runs before it is measured, beside one block.
	warmUp = time.Second
	// minStep is by how much the measured time is prolonged: by a block, and this at least.
	minStep = 500 * time.Millisecond
	// settlePatience is how long after a load answers may wait for their transfers.
	settlePatience = 10 * time.Second
	settlePause    = 100 * time.Millisecond
	// signEvery is for how many payments per second signatures are made in advance: of one payer, and of all together.
	signPayer, signAll = 100, 1000
)

// figures are what is measured of a cell: payers who buy from a system on a chain.
type figures struct {
	System string  `json:"system"`
	Block  float64 `json:"block_seconds"` // 0: blocks at once
	Payers int     `json:"payers"`
	Run    int     `json:"run,omitempty"`

	// Sales ended after the warm-up; what of them were answered 200.
	Sales   int     `json:"sales"`
	Success float64 `json:"success"`
	// Seconds is how long it was measured, PerSecond the paid answers of that time.
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"payments_per_second"`
	// Paid is the paid request alone, Pair with the 402 before it and the signature; of sales that were answered 200.
	Paid latencies `json:"paid"`
	Pair latencies `json:"pair"`
	// BlockWait is the mean time from when a payment was sent to the next block; 0 where blocks come at once.
	BlockWait float64 `json:"block_wait_ms"`
	// BlockLongest is the longest time between two blocks of the measured time.
	BlockLongest float64 `json:"block_longest_ms,omitempty"`
	// Gas of a payment, and its ratio to that of a lone transfer.
	Gas      float64 `json:"gas_per_payment"`
	GasRatio float64 `json:"gas_ratio"`
	// Transactions of the gas wallet over the whole cell; Reverted among them.
	Transactions int `json:"transactions"`
	Reverted     int `json:"reverted"`
	// Failures by what went wrong, of the sales that were not answered 200.
	Failures map[string]int `json:"failures,omitempty"`
	Verdict  verdict        `json:"verdict"`
	// CPU is the share of one core that each process used, in the measured time; Client is this program, the upstream included.
	CPU map[string]float64 `json:"cpu"`
	// Resident is the memory of the system's processes at the end, in MiB.
	Resident float64 `json:"resident_mib"`
	// SignedLate are the authorizations that were not signed in advance.
	SignedLate int `json:"signed_late,omitempty"`
}

// cell measures one: with a chain, servers and a ledger of its own, so that nothing is left of the one before.
func (s *stage) cell(ctx context.Context, system string, block time.Duration, payers int, w *wallet) (f figures, err error) {
	window := s.window(block)
	if err := w.fill(ctx, payers, signatures(payers, window+warmUp+block)); err != nil {
		return f, err
	}
	dir, err := s.folder(system + "-" + strconv.Itoa(payers))
	if err != nil {
		return f, err
	}
	c, err := startChain(ctx, s.peer, block, payers)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	lone, err := c.lone(ctx, w)
	if err == nil {
		err = c.begin(ctx)
	}
	if err != nil {
		return f, err
	}
	before, err := c.read(ctx)
	if err != nil {
		return f, err
	}
	open := s.openOurs
	if system == partPeer {
		open = s.openPeer
	}
	o, err := open(ctx, c, dir)
	if err != nil {
		return f, err
	}
	f = figures{System: system, Block: block.Seconds(), Payers: payers}
	sales, err := f.run(ctx, s, o, c, w, window)
	if err == nil {
		err = c.settled(ctx, sales, len(before.transfers))
	}
	if err := errors.Join(err, o.close()); err != nil {
		return f, err
	}
	err = f.compare(ctx, c, sales, &before, lone)
	return f, err
}

// signatures is how many of a payer are made in advance: what it can use up, or its share of what all can.
func signatures(payers int, d time.Duration) int {
	return int(d.Seconds()*min(signPayer, signAll/float64(payers))) + 2
}

// run lets the load run, and takes its times.
func (f *figures) run(ctx context.Context, s *stage, o *shop, c *chain, w *wallet, window time.Duration) ([]sale, error) {
	payers := make([]*payer, f.Payers)
	for i := range payers {
		payers[i] = &payer{account: devnet.Payer(i).Address, purse: w.purses[i], sign: func() (signed, error) { return w.signed(i, price) }}
	}
	p := &period{over: make(chan struct{}), times: times{
		from: time.Now().Add(warmUp + c.block), window: window, step: max(c.block, minStep), extra: s.patience, patience: s.patience,
	}}
	meter := newMeter(ctx, o, c, p)
	stopProfile := s.profileCell(ctx, o, f, window)
	sales, late := load(ctx, o.addr, payers, p)
	f.CPU, f.SignedLate = meter.read(), late
	stopProfile()
	if err := ctx.Err(); err != nil {
		return sales, err
	}
	f.Resident = round(float64(o.resident())/(1<<20), 1)
	f.times(sales, c, p)
	return sales, o.alive()
}

// times sums up what ended after the warm-up.
func (f *figures) times(sales []sale, c *chain, t *period) {
	var paid, pair, waits []time.Duration
	inTime := 0
	f.Failures = map[string]int{}
	for i := range sales {
		s := &sales[i]
		if s.ended.Before(t.from) {
			continue
		}
		f.Sales++
		if !s.ok() {
			f.Failures[s.why]++
			continue
		}
		if s.ended.Before(t.to) {
			inTime++
		}
		paid, pair = append(paid, s.ended.Sub(s.sent)), append(pair, s.ended.Sub(s.began))
		if c.watch != nil {
			if at, ok := c.watch.next(s.sent); ok {
				waits = append(waits, at.Sub(s.sent))
			}
		}
	}
	f.Success = round(ratio(float64(len(paid)), float64(f.Sales)), 4)
	f.Seconds = t.to.Sub(t.from).Seconds()
	f.PerSecond = round(float64(inTime)/f.Seconds, 2)
	f.BlockWait = ms(mean(waits))
	if c.watch != nil {
		f.BlockLongest = ms(c.watch.longest(t.from, t.to))
	}
	f.Paid, f.Pair = latenciesOf(paid), latenciesOf(pair)
}

// settled waits until every answer has its transfer, for a while.
func (c *chain) settled(ctx context.Context, sales []sale, before int) error {
	for deadline := time.Now().Add(settlePatience); ; {
		r, err := c.transfersSince(ctx, before)
		if err != nil || unpaid(sales, &r) == 0 || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePause):
		}
	}
}

// compare looks at the chain after the servers have ended: what they had sent is mined now or never.
func (f *figures) compare(ctx context.Context, c *chain, sales []sale, before *record, lone uint64) error {
	if err := c.Client().CallContext(ctx, nil, "evm_mine"); err != nil {
		return fmt.Errorf("mining what is left: %w", err)
	}
	r, err := c.transfersSince(ctx, len(before.transfers))
	if err == nil {
		err = c.readGas(ctx, &r)
	}
	if err != nil {
		return err
	}
	f.Verdict = judge(sales, &r)
	f.Transactions, f.Reverted = r.transactions-before.transactions, r.failed
	f.Gas = round(ratio(float64(r.gasUsed-before.gasUsed), float64(len(r.transfers))), 0)
	f.GasRatio = round(ratio(f.Gas, float64(lone)), 3)
	return nil
}

// profileCell takes a CPU profile of our Caddy while it is measured, if profiles are wanted.
func (s *stage) profileCell(ctx context.Context, o *shop, f *figures, window time.Duration) (wait func()) {
	if s.profile == "" || o.admin == "" {
		return func() {}
	}
	return s.takeProfile(ctx, o, fmt.Sprintf("paid-%gs-%d", f.Block, f.Payers), warmUp, window)
}

// takeProfile takes a CPU profile of a Caddy after some time, for some time; wait waits for its end.
func (s *stage) takeProfile(ctx context.Context, o *shop, name string, after, d time.Duration) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
		}
		profile, err := o.ask(ctx, "/debug/pprof/profile?seconds="+strconv.Itoa(max(1, int(d.Seconds()))))
		if err == nil {
			err = os.WriteFile(filepath.Join(s.profile, name+".pprof"), profile, 0o600)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: no profile:", err)
		}
	}()
	return func() { <-done }
}
