package chaos

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
)

// rpcFault is a way in which an endpoint misbehaves.
type rpcFault string

const (
	rpcHealthy rpcFault = ""
	rpcError   rpcFault = "rpc answers 5xx or JSON-RPC errors"
	rpcDelay   rpcFault = "rpc is slow"
	rpcDrop    rpcFault = "rpc acts and drops its answer"
	rpcStale   rpcFault = "rpc lags behind"
	rpcMixed   rpcFault = "rpc is now up to date and now behind"
	rpcDown    rpcFault = "rpc refuses everybody"
)

// endpoint stands in front of the chain's JSON-RPC, one for each instance, as a provider's load balancer would.
type endpoint struct {
	*settlementtest.Proxy

	mu     sync.Mutex
	random *rand.Rand
	fault  rpcFault
	frozen uint64
}

func newEndpoint(t *testing.T, node string, random *rand.Rand) *endpoint {
	e := &endpoint{Proxy: settlementtest.NewProxy(t, node), random: random}
	e.SetFault(func([]string) settlementtest.Fault { return e.mishap() })
	return e
}

// set makes the endpoint misbehave; behind is the block that a stale one knows as the newest.
func (e *endpoint) set(f rpcFault, behind uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault, e.frozen = f, behind
}

// mishap is what happens to one request.
func (e *endpoint) mishap() settlementtest.Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch n := e.random.IntN(100); e.fault {
	case rpcError:
		switch {
		case n < 40:
			return settlementtest.Fault{Status: http.StatusBadGateway}
		case n < 50:
			return settlementtest.Fault{Status: http.StatusTooManyRequests}
		case n < 80:
			return settlementtest.Fault{Message: "internal error"}
		}
	case rpcDelay:
		return settlementtest.Fault{Delay: time.Duration(100+e.random.IntN(4000)) * time.Millisecond}
	case rpcDrop:
		return settlementtest.Fault{DropAnswer: n < 60}
	case rpcStale:
		return settlementtest.Fault{Frozen: e.frozen}
	case rpcMixed:
		if n < 50 {
			return settlementtest.Fault{Frozen: e.frozen}
		}
	case rpcDown:
		return settlementtest.Fault{Status: http.StatusServiceUnavailable}
	}
	return settlementtest.Fault{}
}
