package management

import (
	"net/http"
	"sync"
)

// seats are the places of callers whose calls take long. No key can take those of all others, and those of test networks none of the others'.
type seats struct {
	most      int // for the keys of one network
	mostOfKey int // of these, for one key

	mu    sync.Mutex
	taken map[string]int // by network, and by key
}

// How many may be at it at once. Who listens asks the ledger once in a second; an export reads all of it, and a probe waits for others' answers.
const (
	maxListeners      = 64
	maxListenersOfKey = 16
	maxAtOnce         = 4
	maxAtOnceOfKey    = 2
)

// sit takes a place, until rise; ok is false if there is none.
func (s *seats) sit(c *caller) (rise func(), ok bool) {
	network, key := "", ""
	if !c.local() {
		network, key = c.key.Mode.Network(), c.key.ID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[network] >= s.most || key != "" && s.taken[key] >= s.mostOfKey {
		return nil, false
	}
	if s.taken == nil {
		s.taken = map[string]int{}
	}
	names := []string{network}
	if key != "" {
		names = append(names, key)
	}
	for _, name := range names {
		s.taken[name]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range names {
			if s.taken[name]--; s.taken[name] == 0 {
				delete(s.taken, name)
			}
		}
	}, true
}

// busyAgain is after how many seconds it is worth to ask again.
const busyAgain = 5

// enter is sit for calls that are refused when there is no place.
func (s *seats) enter(c *caller) (leave func(), err error) {
	leave, ok := s.sit(c)
	if !ok {
		e := told(http.StatusServiceUnavailable, CodeBusy, "too many such calls are answered just now; try again", nil)
		e.RetryAfter = busyAgain
		return nil, e
	}
	return leave, nil
}
