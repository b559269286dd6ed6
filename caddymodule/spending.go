package caddymodule

import (
	"math/big"
	"sync"
	"time"
)

// spending is what this process has paid for gas since it began, exactly: how long the gas wallets will last is told from it.
var spending = spent{since: time.Now(), wei: map[string]*big.Int{}}

type spent struct {
	since time.Time

	mu  sync.Mutex
	wei map[string]*big.Int // by network
}

func (s *spent) add(network string, wei *big.Int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wei[network] == nil {
		s.wei[network] = new(big.Int)
	}
	s.wei[network].Add(s.wei[network], wei)
}

// of is what was spent on a network, and since when.
func (s *spent) of(network string) (string, *time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.since.UTC()
	if wei := s.wei[network]; wei != nil {
		return wei.String(), &since
	}
	return "0", &since
}
