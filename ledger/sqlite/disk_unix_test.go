//go:build unix

package sqlite_test

import (
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func init() {
	fillDisk = func() {
		// Every write beyond the first 3 MB of a file fails.
		signal.Ignore(syscall.SIGXFSZ)
		limit := syscall.Rlimit{Cur: 3_000_000, Max: 3_000_000}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			panic(err)
		}
	}
}

// A disk that takes no more gives errors, and nothing that was answered is lost nor anything half there.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	acks := &acknowledged{versions: map[string]uint64{}, sent: map[string]bool{}}
	rest, err := start(t, "full", path).wait()
	if err != nil {
		t.Fatal(err)
	}
	acks.note(t, rest)
	failed := 0
	for _, l := range rest {
		if strings.HasPrefix(l, "error ") {
			failed++
		}
	}
	if failed != 8 || len(acks.versions) < 20 {
		t.Errorf("%d callers failed, want 8, after %d payments", failed, len(acks.versions))
	}
	acks.check(t, path)
}
