package caddymodule

import (
	"testing"
	"time"
)

// What is settled for others must have time to come into a block, however long that takes on its chain.
func TestLeastRemaining(t *testing.T) {
	for chainID := range blockTimes {
		if got, block := leastRemaining(chainID), blockTimes[chainID].block; got <= block || got > 20*time.Second {
			t.Errorf("chain %d makes a block in %s, and %s must be left", chainID, block, got)
		}
	}
	if got := leastRemaining(987_654_321); got < leastRemaining(1) {
		t.Errorf("%s on a chain that nobody knows", got)
	}
}
