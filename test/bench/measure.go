package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// measure measures all that c wants. What was measured before an error is reported too.
func measure(ctx context.Context, c config, progress io.Writer) (r *report, err error) {
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}
	if c.profile != "" {
		if err := os.MkdirAll(c.profile, 0o700); err != nil {
			return nil, fmt.Errorf("the folder for profiles: %w", err)
		}
	}
	say("building Caddy")
	s, err := setUp(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.tearDown()) }()
	r = &report{Store: c.store, Flow: or(c.flow, "upfront"), GasLimit: gasLimit}
	if r.Machine, err = s.lookAround(ctx); err != nil {
		return nil, err
	}
	if c.has(partHot) {
		if r.Hot, err = s.hot(ctx, say); err != nil {
			return r, fmt.Errorf("the hot paths: %w", err)
		}
	}
	return r, s.allCells(ctx, r, say)
}

// allCells measures all cells. What is compared is measured one right after the other.
func (s *stage) allCells(ctx context.Context, r *report, say func(string, ...any)) error {
	w, n := new(wallet), 0
	var systems []string
	for _, system := range []string{partOurs, partPeer} {
		if s.has(system) {
			systems = append(systems, system)
		}
	}
	all := s.runs * len(s.blocks) * len(s.config.payers) * len(systems)
	for run := range s.runs {
		for _, block := range s.blocks {
			for _, payers := range s.config.payers {
				for _, system := range systems {
					n++
					f, err := s.cell(ctx, system, block, payers, w)
					if err != nil {
						return fmt.Errorf("%s, %s, %d payers: %w", system, kind(block), payers, err)
					}
					f.Run = run + 1
					r.Runs = append(r.Runs, f)
					say("%d/%d  %s, %s, %d payers: %.1f payments/s, %.1f %% answered, p50 %.0f ms", n, all, system, kind(block), payers,
						f.PerSecond, 100*f.Success, f.Paid.P50)
					for _, wrong := range f.Verdict.Wrong {
						say("   WRONG: %s", wrong)
					}
				}
			}
		}
	}
	return nil
}
