package refunds

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// instance is a Caddy in a process of its own, whose kills are noted, and whose log and metrics are read.
type instance struct {
	*rig.Process
	admin string

	mu    sync.Mutex
	kills []time.Time
}

func (in *instance) kill() {
	in.Kill()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.kills = append(in.kills, time.Now())
}

// killed are the times at which the instance was killed.
func (in *instance) killed() []time.Time {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.kills
}

// says counts how often the instance's log has a text.
func (in *instance) says(text string) int {
	log, err := os.ReadFile(in.Log)
	if err != nil {
		return 0
	}
	return strings.Count(string(log), text)
}

// counts reads a metric.
func (in *instance) counts(b *rig.Buyer, metric string) (n int) {
	_, rest, ok := strings.Cut(b.Get("http://"+in.admin+"/metrics").Body, "\n"+metric+" ")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	if _, err := fmt.Sscan(line, &n); err != nil {
		return -1
	}
	return n
}
