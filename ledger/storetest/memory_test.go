package storetest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the stores are compared with passes the suite itself.
func TestMemory(t *testing.T) {
	for name, o := range map[string]Options{"archives": {Light: true}, "forgets": {Light: true, Forgets: true}} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(_ *testing.T, now func() time.Time) Backend { return &memoryBackend{NewMemory(now, o.Forgets)} }, o)
		})
	}
}

// memoryBackend crashes between calls, and loses nothing but what the process had in mind.
type memoryBackend struct{ m *Memory }

func (b *memoryBackend) Store() ledger.Store  { return b.m }
func (b *memoryBackend) Second() ledger.Store { return b.m }

func (b *memoryBackend) Crash() {
	had := b.m
	b.m = had.Clone()
	b.m.closed = false
	had.Close()
}

func (b *memoryBackend) CrashDuring(_ int, f func(ledger.Store)) bool {
	f(b.m)
	b.Crash()
	return false
}

func (b *memoryBackend) Close() { b.m.Close() }
