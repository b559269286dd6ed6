package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What can be measured.
const (
	partHot  = "hot"
	partOurs = "ours"
	partPeer = "peer"
)

// config is what shall be measured, and how.
type config struct {
	seconds time.Duration   // how long a cell is measured
	payers  []int           // one cell each
	blocks  []time.Duration // the chains; 0: blocks at once
	runs    int
	only    []string // parts
	store   string
	flow    string // "": what Caddy takes without being told
	app     string // further lines of the global option
	json    string
	dir     string
	profile string
	peer    string // the folder of the peer, with its node_modules

	// fewest is how many blocks a cell is measured for at least.
	fewest int
	// patience is how long a client waits for an answer.
	patience time.Duration
	// rounds, slice and paced are of the hot paths: how often each is measured, and for how long at full and at modest load.
	rounds       int
	slice, paced time.Duration
}

func configFrom(env func(string) string) (c config, err error) {
	c = config{
		store: or(env("BENCH_STORE"), "sqlite"), flow: env("BENCH_FLOW"), app: env("BENCH_APP"), json: env("BENCH_JSON"),
		dir: env("BENCH_DIR"), profile: env("BENCH_PROFILE"), only: strings.Split(or(env("BENCH_ONLY"), "hot,ours,peer"), ","),
		fewest: 4, patience: 30 * time.Second, slice: time.Second, paced: time.Second,
	}
	if c.payers, err = list(or(env("BENCH_PAYERS"), "1,8,32,128,1024,2048"), positive); err != nil {
		return c, fmt.Errorf("BENCH_PAYERS: %w", err)
	}
	if c.blocks, err = list(or(env("BENCH_BLOCKS"), "0,2s"), blockTime); err != nil {
		return c, fmt.Errorf("BENCH_BLOCKS: %w", err)
	}
	seconds, err := positive(or(env("BENCH_SECONDS"), "5"))
	if err != nil {
		return c, fmt.Errorf("BENCH_SECONDS: %w", err)
	}
	c.seconds = time.Duration(seconds) * time.Second
	if c.runs, err = positive(or(env("BENCH_RUNS"), "1")); err != nil {
		return c, fmt.Errorf("BENCH_RUNS: %w", err)
	}
	c.rounds = hotRounds * c.runs
	for _, part := range c.only {
		if !slices.Contains([]string{partHot, partOurs, partPeer}, part) {
			return c, fmt.Errorf("BENCH_ONLY: %q is none of hot, ours, peer", part)
		}
	}
	c.peer, err = findPeer()
	return c, err
}

// window is how long a cell is measured on a chain.
func (c *config) window(block time.Duration) time.Duration {
	return max(c.seconds, time.Duration(c.fewest)*block)
}

func (c *config) has(part string) bool { return slices.Contains(c.only, part) }

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func list[T any](s string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for word := range strings.SplitSeq(s, ",") {
		v, err := parse(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func positive(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no number above zero", s)
	}
	return n, nil
}

// blockTime reads what the chain can do: whole seconds.
func blockTime(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d%time.Second != 0 {
		return 0, fmt.Errorf("%q is neither 0 nor whole seconds such as 2s", s)
	}
	return d, nil
}

// findPeer finds the folder of the peer, from the repository's root and from here.
func findPeer() (string, error) {
	for _, dir := range []string{filepath.Join("test", "bench", "peer"), "peer"} {
		if _, err := os.Stat(filepath.Join(dir, "package.json")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
			return "", fmt.Errorf("the packages of %s are not installed: run npm ci there, or make bench", dir)
		}
		return filepath.Abs(dir)
	}
	return "", fmt.Errorf("the folder test/bench/peer is not here; start in the repository")
}
