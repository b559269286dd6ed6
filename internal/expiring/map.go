// Package expiring remembers what was found out, for a while.
package expiring

import (
	"maps"
	"sync"
	"time"
)

// Map holds values until they expire, and never more than Most: when it is full, what has expired goes, and all of it if that is less
// than half. So it is for what can be found out again. A Map whose Most is zero holds nothing. It is safe for concurrent use.
type Map[K comparable, V any] struct {
	// Most is how many values it may hold. It is set before the Map is used.
	Most int

	mu      sync.Mutex
	entries map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

// Get gives the value of key, if there is one that has not expired at now.
func (m *Map[K, V]) Get(key K, now time.Time) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok || !now.Before(e.until) {
		return value, false
	}
	return e.value, true
}

// Put remembers the value of key until the time given, in place of the one before.
func (m *Map[K, V]) Put(key K, value V, until, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Most <= 0 {
		return
	}
	if m.entries == nil {
		m.entries = make(map[K]entry[V])
	}
	if len(m.entries) >= m.Most {
		maps.DeleteFunc(m.entries, func(_ K, e entry[V]) bool { return !now.Before(e.until) })
		if len(m.entries) > m.Most/2 { // or each Put might have to look at all of them
			clear(m.entries)
		}
	}
	m.entries[key] = entry[V]{value, until}
}

// Delete forgets the value of key.
func (m *Map[K, V]) Delete(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
}
