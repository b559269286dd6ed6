package chaos

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// fault is one thing that may break. It leaves alone what it does not name.
type fault struct {
	kind string
	// target can have one fault at a time.
	target string
	// least and most are how long it lasts.
	least, most time.Duration
	weight      int
	// begin breaks it, end mends it.
	begin, end func() error
}

// mischief breaks one thing after the other, and mends it.
type mischief struct {
	faults []fault
	random *rand.Rand
	say    func(format string, args ...any)

	mu      sync.Mutex
	broken  map[string]bool
	counts  map[string]int
	errs    []error
	history []string
}

// atOnce is how many things are broken at the same time, at most.
const atOnce = 3

// run breaks things until ctx ends; when it returns, all is mended.
func (m *mischief) run(ctx context.Context) {
	m.broken, m.counts = make(map[string]bool), make(map[string]int)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(700+m.random.IntN(2300)) * time.Millisecond):
		}
		f, lasts, ok := m.choose()
		if !ok {
			continue
		}
		wg.Go(func() { m.play(ctx, f, lasts) })
	}
}

func (m *mischief) choose() (f fault, lasts time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.broken) >= atOnce {
		return f, 0, false
	}
	total := 0
	for _, f := range m.faults {
		if !m.broken[f.target] {
			total += f.weight
		}
	}
	if total == 0 {
		return f, 0, false
	}
	n := m.random.IntN(total)
	for _, f = range m.faults {
		if m.broken[f.target] {
			continue
		}
		if n -= f.weight; n < 0 {
			break
		}
	}
	m.broken[f.target] = true
	m.counts[f.kind]++
	return f, f.least + time.Duration(m.random.Int64N(int64(f.most-f.least))), true
}

func (m *mischief) play(ctx context.Context, f fault, lasts time.Duration) {
	m.note("%s: %s for %s", f.target, f.kind, lasts.Round(time.Millisecond))
	err := f.begin()
	select {
	case <-time.After(lasts):
	case <-ctx.Done():
	}
	if e := f.end(); err == nil {
		err = e
	}
	m.note("%s: mended (%s)", f.target, f.kind)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.broken, f.target)
	if err != nil {
		m.errs = append(m.errs, fmt.Errorf("%s: %s: %w", f.target, f.kind, err))
	}
}

func (m *mischief) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history = append(m.history, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// now is what is broken at the moment.
func (m *mischief) now() (list []string, total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for target := range m.broken {
		list = append(list, target)
	}
	for _, n := range m.counts {
		total += n
	}
	return list, total
}

// instanceFaults are those of a process.
func instanceFaults(in *instance) []fault {
	return []fault{
		{
			kind: "instance killed", target: in.name, least: 200 * time.Millisecond, most: 4 * time.Second, weight: 6,
			begin: func() error { in.kill(); return nil }, end: in.start,
		},
		{
			kind: "instance paused", target: in.name, least: time.Second, most: 7 * time.Second, weight: 4,
			begin: func() error { in.signal(syscall.SIGSTOP); return nil },
			end:   func() error { in.signal(syscall.SIGCONT); return nil },
		},
	}
}

// chainFaults are those of the chain itself: fees that rise above what was offered, so that what waits must be replaced, or can't be mined
// before it is good for nothing any more.
func chainFaults(chain *devnet.Chain, node *ethclient.Client) []fault {
	dearer := func(kind string, weight int, least, most time.Duration, percent int64, refuse bool) fault {
		return fault{
			kind: kind, target: "chain", least: least, most: most, weight: weight,
			begin: func() error {
				tip, err := node.SuggestGasTipCap(context.Background())
				if err != nil {
					return err
				}
				tip.Mul(tip, big.NewInt(percent))
				return chain.SetMinimumTip(tip.Div(tip, big.NewInt(100)), refuse)
			},
			end: func() error { return chain.SetMinimumTip(nil, false) },
		}
	}
	return []fault{
		dearer("gas costs more than was offered", 4, 6*time.Second, 13*time.Second, 120, false),
		dearer("node refuses what offers too little", 2, 3*time.Second, 8*time.Second, 120, true),
		dearer("gas costs more than anybody offers", 1, 19*time.Second, 25*time.Second, 10_000, false),
	}
}

// endpointFaults are those of an instance's way to the chain. head gives the newest block.
func endpointFaults(name string, e *endpoint, head func() uint64) []fault {
	var list []fault
	for _, kind := range []rpcFault{rpcError, rpcDelay, rpcDrop, rpcStale, rpcMixed, rpcDown} {
		list = append(list, fault{
			kind: string(kind), target: "rpc of " + name, least: time.Second, most: 7 * time.Second, weight: 1,
			begin: func() error { e.set(kind, head()); return nil },
			end:   func() error { e.set(rpcHealthy, 0); return nil },
		})
	}
	return list
}

// server is a store's server.
type server interface {
	Kill() error
	Restart(context.Context) error
	Pause() error
	Continue() error
}

func serverFaults(name string, s server) []fault {
	return []fault{
		{kind: "store killed", target: name, least: 200 * time.Millisecond, most: 3 * time.Second, weight: 5, begin: s.Kill, end: func() error { return s.Restart(context.Background()) }},
		{kind: "store paused", target: name, least: time.Second, most: 6 * time.Second, weight: 4, begin: s.Pause, end: s.Continue},
	}
}
