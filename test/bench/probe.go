package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// machine is where and with what was measured.
type machine struct {
	When  time.Time `json:"when"`
	CPU   string    `json:"cpu"`
	Cores int       `json:"cores"`
	OS    string    `json:"os"`
	Go    string    `json:"go"`
	// Revision is of this repository; with + where it was changed since.
	Revision string `json:"revision,omitempty"`
	// Fsync is of a page, Commit of one claim in the ledger, by one caller.
	Fsync  latencies `json:"fsync,omitzero"`
	Commit latencies `json:"commit,omitzero"`
}

func thisMachine(ctx context.Context) machine {
	return machine{
		When: time.Now().UTC().Truncate(time.Second), CPU: cpuModel(), Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Go: runtime.Version(), Revision: revision(ctx),
	}
}

func (s *stage) lookAround(ctx context.Context) (machine, error) {
	m := thisMachine(ctx)
	dir, err := s.folder("probe")
	if err != nil {
		return m, err
	}
	if m.Fsync, err = probeFsync(dir); err != nil {
		return m, err
	}
	store, err := s.newStore(ctx, dir)
	if err != nil {
		return m, err
	}
	m.Commit, err = store.probe(ctx)
	return m, errors.Join(err, store.end())
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown"
}

// revision asks git; it is empty where there is none.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// probeFsync writes pages of a file anew on the disk that the ledger will be on: what a commit costs there at the least.
func probeFsync(dir string) (l latencies, err error) {
	const pages, size = 200, 4096
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return l, fmt.Errorf("measuring fsync: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page, took := make([]byte, size), make([]time.Duration, pages)
	if _, err := f.Write(make([]byte, pages*size)); err != nil {
		return l, fmt.Errorf("measuring fsync: %w", err)
	}
	if err := f.Sync(); err != nil {
		return l, fmt.Errorf("measuring fsync: %w", err)
	}
	for i := range took {
		began := time.Now()
		if _, err := f.WriteAt(page, int64(i)*size); err != nil {
			return l, fmt.Errorf("measuring fsync: %w", err)
		}
		if err := f.Sync(); err != nil {
			return l, fmt.Errorf("measuring fsync: %w", err)
		}
		took[i] = time.Since(began)
	}
	return latenciesOf(took), nil
}
