//go:build unix

package sqlite_test

import (
	"os/signal"
	"syscall"
)

// limitFileSize makes every write beyond the first 600 kB of a file fail, as a full disk does.
func limitFileSize() {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 600_000, Max: 600_000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
}
