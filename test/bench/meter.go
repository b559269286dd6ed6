package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// meter reads what the processes used of the processor while a load was measured.
type meter struct {
	used map[string]float64
	done chan struct{}
}

func newMeter(ctx context.Context, o *shop, c *chain, p *period) *meter {
	m := &meter{used: map[string]float64{}, done: make(chan struct{})}
	read := func() map[string]time.Duration {
		used := o.cpu()
		used["anvil"], used["client"] = cpuOf(c.PID()), cpuOf(os.Getpid())
		return used
	}
	go func() {
		defer close(m.done)
		if !wait(ctx, p.from) {
			return
		}
		began, before := time.Now(), read()
		<-p.over
		after, took := read(), time.Since(began)
		for name := range after {
			if share := ratio(float64(after[name]-before[name]), float64(took)); share > 0 {
				m.used[name] = round(share, 3)
			}
		}
	}()
	return m
}

// read waits for the end of what is measured.
func (m *meter) read() map[string]float64 {
	<-m.done
	return m.used
}

// wait is false if ctx ended before.
func wait(ctx context.Context, until time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Until(until)):
		return true
	}
}

// askPatience is enough for a profile of the longest cell.
const askPatience = 10 * time.Minute

// ask asks Caddy's administration.
func (s *shop) ask(ctx context.Context, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: askPatience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, res.Status)
	}
	return text, err
}

// memory is what a process holds, in MiB.
type memory struct {
	// Heap is what a garbage collection has left.
	Heap     float64 `json:"heap_mib"`
	Resident float64 `json:"resident_mib"`
}

// memory asks our Caddy to collect its garbage, and what is left.
func (s *shop) memory(ctx context.Context) (m memory, err error) {
	text, err := s.ask(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return m, fmt.Errorf("asking for the heap: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return m, fmt.Errorf("asking for the heap: %w", err)
			}
			return memory{Heap: round(float64(n)/(1<<20), 1), Resident: round(float64(s.resident())/(1<<20), 1)}, nil
		}
	}
	return m, errors.New("the heap's profile does not say how large the heap is")
}
