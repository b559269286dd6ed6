package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is what there was at one time of the run. Memory and files are in MiB.
type sample struct {
	Seconds   float64 `json:"seconds"`
	Served    int     `json:"served"`
	Transfers int     `json:"transfers"`
	// Heap of Caddy after a garbage collection, and its memory as the system sees it.
	Heap       float64 `json:"heap_mib"`
	Resident   float64 `json:"resident_mib"`
	Goroutines int     `json:"goroutines"`
	// Ledger are the files of the ledger.
	Ledger float64 `json:"ledger_mib"`
	// What the chain and the clients have; it grows, since they keep everything.
	Chain  float64 `json:"chain_mib"`
	Client float64 `json:"clients_mib"`
	// CPU in cores, since the sample before.
	CPU map[string]float64 `json:"cpu"`

	at   time.Time
	used map[string]time.Duration
}

// look takes a sample, and shows it.
func (s *soak) look(ctx context.Context, after time.Duration) error {
	if err := s.shop.alive(); err != nil {
		return err
	}
	if err := s.books.follow(ctx); err != nil {
		return err
	}
	m, err := s.shop.memory(ctx)
	if err != nil {
		return err
	}
	n := sample{
		Seconds: round(after.Seconds(), 1), Served: int(s.crowd.gotten.Load()), Transfers: len(s.books.transfers), Heap: m.Heap, Resident: m.Resident,
		Ledger: s.ledgerSize(), Chain: mib(s.chain.resident()), Client: mib(residentOf(os.Getpid())), CPU: map[string]float64{},
		at: time.Now(), used: map[string]time.Duration{"caddy": s.shop.processes[0].cpu(), "chain": s.chain.cpu(), "clients": cpuOf(os.Getpid())},
	}
	if n.Goroutines, err = s.shop.goroutines(ctx); err != nil {
		return err
	}
	var before sample
	if len(s.samples) > 0 {
		before = s.samples[len(s.samples)-1]
		for who, used := range n.used {
			n.CPU[who] = round(ratio(float64(used-before.used[who]), float64(n.at.Sub(before.at))), 2)
		}
	}
	s.samples = append(s.samples, n)
	s.say("%5.0f s: %7d served (%.0f/s), %7d on chain; Caddy: heap %.1f MiB, resident %.0f MiB, %d goroutines; ledger %.0f MiB; chain %.0f MiB; clients %.0f MiB; CPU %v",
		n.Seconds, n.Served, ratio(float64(n.Served-before.Served), n.Seconds-before.Seconds), n.Transfers, n.Heap, n.Resident, n.Goroutines, n.Ledger, n.Chain, n.Client, n.CPU)
	return nil
}

func mib(bytes uint64) float64 { return round(float64(bytes)/(1<<20), 1) }

// goroutines asks our Caddy how many it has.
func (s *shop) goroutines(ctx context.Context) (int, error) {
	text, err := s.ask(ctx, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("asking for metrics: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(n), err
		}
	}
	return 0, nil
}

// ledgerSize is how long the ledger's files are, where they are here.
func (s *soak) ledgerSize() float64 {
	files, _ := filepath.Glob(filepath.Join(s.files, "ledger.db*"))
	sum := int64(0)
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			sum += info.Size()
		}
	}
	return mib(uint64(sum))
}

// flat compares Caddy's memory in the second quarter of the run with that in the last one. Of the heap the lowest readings
// count: what is on its way at a moment comes and goes, and moves the median by a third from one quarter to the next; what leaks
// lifts the lowest. Of what the system sees, which does not come and go, the median.
type flat struct {
	SecondHeap     float64 `json:"second_quarter_heap_mib"`
	LastHeap       float64 `json:"last_quarter_heap_mib"`
	SecondResident float64 `json:"second_quarter_resident_mib"`
	LastResident   float64 `json:"last_quarter_resident_mib"`
	// OK: the heap is no larger than before by more than a tenth and 4 MiB, nor what the system sees by more than a fifth and 32 MiB.
	OK bool `json:"ok"`
}

func flatness(samples []sample) flat {
	if len(samples) < 4 {
		return flat{}
	}
	quarter := func(n int) (heap, resident float64) {
		var heaps, residents []float64
		for _, s := range samples[n*len(samples)/4 : (n+1)*len(samples)/4] {
			heaps, residents = append(heaps, s.Heap), append(residents, s.Resident)
		}
		return slices.Min(heaps), median(residents)
	}
	var f flat
	f.SecondHeap, f.SecondResident = quarter(1)
	f.LastHeap, f.LastResident = quarter(3)
	f.OK = f.SecondHeap > 0 && f.LastHeap <= 1.1*f.SecondHeap+4 && f.LastResident <= 1.2*f.SecondResident+32
	return f
}
