package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
)

// Ports that servers of tests listen at. The system gives the ports above to those who connect: a server that was killed would
// find its own taken when it is started again.
const (
	lowestPort  = 12_000
	highestPort = 32_000
)

var handedOut sync.Map // of this process's, by number

// FreePort gives a port of 127.0.0.1 where nobody listens, no client's connection will be, and this process has none of yet.
func FreePort(ctx context.Context) (int, error) {
	highest := highestPort
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var first int
		if _, err := fmt.Sscan(string(text), &first); err == nil {
			highest = min(highest, first-1)
		}
	}
	if highest <= lowestPort+1000 {
		return 0, fmt.Errorf("the system gives ports from %d on to clients: none are left for servers", highest+1)
	}
	var lc net.ListenConfig
	var last error
	for range 200 {
		port := lowestPort + rand.IntN(highest-lowestPort)
		if _, taken := handedOut.LoadOrStore(port, struct{}{}); taken {
			continue
		}
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, errors.Join(errors.New("no port is free"), last)
}
