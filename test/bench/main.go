// Command bench measures what this module costs and what it can do: side by side, in one run on one machine, our Caddy, the
// same Caddy without a paywall, and the reference server of x402 with its facilitator, all on the same local chain.
//
// It is one command with few knobs, all of them environment variables; docs/benchmarks.md says what is measured and how.
//
//	BENCH_SECONDS  how long a cell is measured (5; at least four blocks)
//	BENCH_PAYERS   how many payers buy at the same time (1,8,32,128,1024,2048)
//	BENCH_BLOCKS   the time between blocks; 0: as soon as a transaction waits (0,2s)
//	BENCH_RUNS     how often each cell is measured (1)
//	BENCH_ONLY     some of hot, ours, peer (all)
//	BENCH_STORE    sqlite, postgres or redis (sqlite)
//	BENCH_FLOW     what stands after `flow` on the paid route (the default flow)
//	BENCH_APP      further lines of the global option x402, such as "settle_timeout 20s"
//	BENCH_JSON     a file for all figures
//	BENCH_DIR      where ledgers and logs are kept; without it they are gone afterwards
//	BENCH_PROFILE  a folder for CPU profiles of our Caddy
//
// With the argument soak it is one long run instead: clients of all kinds buy from our Caddy, and in the end what they were told,
// the chain and the ledger must agree, and Caddy's memory must not have grown. It fails if they don't, or if it has.
//
//	SOAK_SECONDS   how long clients buy at most (3600)
//	SOAK_PAYMENTS  how many payments are enough (1000000)
//	SOAK_CLIENTS   how many buy at the same time (1000), with the accounts of SOAK_PAYERS payers (4000)
//	SOAK_LANES     how many wallets settle (2)
//	SOAK_BLOCK     the time between blocks (1s)
//	SOAK_STORE     sqlite, postgres or redis (sqlite)
//	SOAK_EVERY     how often everything is looked at, and shown, in seconds (15)
//	SOAK_JSON      a file for all figures
//	SOAK_DIR       where the ledger and logs are kept; without it they are gone afterwards
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be done by stop
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return start(ctx)
	case args[0] == "soak" && len(args) == 1:
		return startSoak(ctx)
	case args[0] == chainCommand:
		return serveChain(ctx, args[1:])
	}
	return fmt.Errorf("%q is not known; there is soak", args)
}

func startSoak(ctx context.Context) error {
	c, err := soakConfigFrom(os.Getenv)
	if err != nil {
		return err
	}
	report, err := runSoak(ctx, c, os.Stderr)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if report == nil {
		return err
	}
	report.print(os.Stdout)
	if c.json != "" {
		err = errors.Join(err, report.save(c.json))
	}
	return errors.Join(err, report.verdict())
}

func start(ctx context.Context) error {
	c, err := configFrom(os.Getenv)
	if err != nil {
		return err
	}
	report, err := measure(ctx, c, os.Stderr)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if report != nil {
		report.print(os.Stdout)
	}
	if err == nil && c.json != "" {
		err = report.save(c.json)
	}
	return err
}
