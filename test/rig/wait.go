package rig

import (
	"testing"
	"time"
)

// Patience is how long tests wait for what takes moments, unless the machine is busy; who died may have leased a payment for a minute.
const Patience = 90 * time.Second

// Until waits until ok; what is said of a test in which it does not come to that.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
