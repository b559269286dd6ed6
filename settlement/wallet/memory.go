package wallet

import (
	"context"
	"sync"
)

// memorySize bounds what is remembered; what is forgotten costs a question to the chain.
const memorySize = 8192

// memory is a map of limited size.
type memory[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]V
}

func (m *memory[K, V]) put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[K]V)
	}
	for old := range m.m {
		if len(m.m) < memorySize {
			break
		}
		delete(m.m, old)
	}
	m.m[k] = v
}

func (m *memory[K, V]) get(k K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.m[k]
	return v, ok
}

func (m *memory[K, V]) drop(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, k)
}

// lock is a mutex that a context can stop waiting for.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) unlock() { <-l }
