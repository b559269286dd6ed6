package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	// hotClients ask one request after the other, each on a connection of its own.
	hotClients = 32
	// pacedClients ask so often that nothing has to wait: 1,000 requests a second together.
	pacedClients = 8
	pacedEvery   = 8 * time.Millisecond
	hotPatience  = 10 * time.Second
	// hotRounds are those of one run.
	hotRounds = 5
)

// The hot paths, by their names in tables.
const (
	hotBare    = "reverse_proxy"
	hotTold    = "reverse_proxy, telling as much"
	hotPass    = "a pass's token"
	hotCounted = "a counted pass's token"
	hotRespond = "respond 402"
	hotOffer   = "402"
	hotExpress = "402 of @x402/express"
)

// hotFigures are what is measured of a path that takes no payment.
type hotFigures struct {
	Name string `json:"name"`
	// PerSecond is the median of the rounds at full load; Full are the latencies then, Paced those at 1,000 requests a second.
	PerSecond float64   `json:"requests_per_second"`
	Full      latencies `json:"full"`
	Paced     latencies `json:"paced"`
	// CPU is what the server used for one request at full load, in microseconds; 0 on systems that don't tell.
	CPU float64 `json:"cpu_us"`
	// Ratio is to what the path is compared with, round by round: the median. AddedP99 is at modest load.
	Beside   string  `json:"beside,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"`
	CPURatio float64 `json:"cpu_ratio,omitempty"`
	AddedP99 float64 `json:"added_p99_ms,omitempty"`
}

// hotReport is what is measured of all hot paths.
type hotReport struct {
	Paths []hotFigures `json:"paths"`
	// Before and After are our Caddy's memory, before the first and after the last of so many requests.
	Before   memory `json:"memory_before"`
	After    memory `json:"memory_after"`
	Requests int    `json:"requests"`
}

// path is a hot path while it is measured.
type path struct {
	name     string
	process  *process
	uri      string
	requests [][]byte // one for each client
	status   int
	beside   string

	rates, shares []float64 // by round: requests per second, and microseconds of processor time for one
	full, paced   []time.Duration
	count         int
}

// hot measures what takes no payment: each path in turn, again and again, so that the machine's moods fall out.
func (s *stage) hot(ctx context.Context, say func(string, ...any)) (h *hotReport, err error) {
	dir, err := s.folder("hot")
	if err != nil {
		return nil, err
	}
	c, err := startChain(ctx, s.peer, 0, hotClients)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	o, err := s.openOurs(ctx, c, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	paths, end, err := s.hotPaths(ctx, c, o, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()

	h = new(hotReport)
	for round := range s.rounds + 1 { // the first one is for warming up
		if round == 1 {
			if h.Before, err = o.memory(ctx); err != nil {
				return nil, err
			}
		}
		say("hot paths, round %d of %d", round, s.rounds)
		for i := range paths {
			p := paths[(i+round)%len(paths)]
			if err := p.measure(ctx, s, round == 0); err != nil {
				return nil, err
			}
		}
	}
	if h.After, err = o.memory(ctx); err != nil {
		return nil, err
	}
	for _, p := range paths {
		h.Paths = append(h.Paths, p.figures(paths))
		if p.process == o.processes[0] {
			h.Requests += p.count
		}
	}
	return h, s.profileHot(ctx, o, paths)
}

// hotPaths prepares what is measured, and starts what it needs beside our Caddy.
func (s *stage) hotPaths(ctx context.Context, c *chain, o *shop, dir string) (paths []*path, end func() error, err error) {
	var ends []func() error
	endAll := func() (err error) {
		for _, f := range slices.Backward(ends) {
			err = errors.Join(err, f())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, endAll())
		}
	}()
	tokens, offer, err := s.passes(ctx, o, "/pass")
	if err != nil {
		return nil, nil, err
	}
	counted, _, err := s.passes(ctx, o, "/counted")
	if err != nil {
		return nil, nil, err
	}
	plain, err := s.launchCaddy(ctx, "bare", bare, dir, nil,
		"{told}", s.telling(), "{header}", strings.Repeat("x", len(offer.offer)), "{body}", strings.Repeat("x", offer.length))
	if err != nil {
		return nil, nil, err
	}
	ends = append(ends, plain.stop)

	caddy := o.processes[0]
	paths = []*path{
		{name: hotBare, process: plain, uri: "/pass", status: 200},
		{name: hotTold, process: plain, uri: "/told", status: 200, beside: hotBare},
		{name: hotPass, process: caddy, uri: "/pass", status: 200, beside: hotBare},
		{name: hotCounted, process: caddy, uri: "/counted", status: 200, beside: hotBare},
		{name: hotRespond, process: plain, uri: "/paid", status: 402},
		{name: hotOffer, process: caddy, uri: "/paid", status: 402, beside: hotRespond},
	}
	if s.has(partPeer) {
		peer, err := s.openPeer(ctx, c, dir)
		if err != nil {
			return nil, nil, err
		}
		ends = append(ends, peer.close)
		paths = append(paths, &path{name: hotExpress, process: peer.processes[1], uri: "/paid", status: 402, beside: hotRespond})
	}
	for _, p := range paths {
		for i := range hotClients {
			token := tokens[i]
			if p.name == hotCounted {
				token = counted[i]
			}
			p.requests = append(p.requests, request(p, token))
		}
	}
	return paths, endAll, nil
}

// request asks for a path; what is compared with another sends the same.
func request(p *path, token string) []byte {
	text := "GET " + p.uri + " HTTP/1.1\r\nHost: " + p.process.addr + "\r\nAccept: */*\r\n"
	if p.status == 200 {
		text += "Authorization: Bearer " + token + "\r\n"
	}
	return []byte(text + "\r\n")
}

// telling is what makes reverse_proxy add headers of the names and lengths that our Caddy adds.
func (s *stage) telling() string {
	var lines []string
	if told := s.told.Load(); told != nil {
		for name, values := range *told {
			if strings.HasPrefix(name, "X-Payment-") {
				lines = append(lines, "header_up "+name+" "+strings.Repeat("x", len(values[0])))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// passes buys a pass of a path for each client, and gives an offer of a single request, too.
func (s *stage) passes(ctx context.Context, o *shop, uri string) (tokens []string, offer answer, err error) {
	tokens, failed := make([]string, hotClients), make([]error, hotClients)
	var buying sync.WaitGroup
	for i := range tokens {
		buying.Go(func() { tokens[i], failed[i] = s.buyPass(ctx, o.addr, uri, i) })
	}
	buying.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, offer, err
	}
	w := wire{addr: o.addr}
	defer w.close()
	offer, err = w.do(ctx, []byte("GET /paid HTTP/1.1\r\nHost: "+o.addr+"\r\n\r\n"), time.Now().Add(s.patience))
	if err == nil && (offer.status != 402 || offer.offer == "") {
		err = fmt.Errorf("asking for an offer: %s", reason(offer, nil))
	}
	return tokens, offer, err
}

func (s *stage) buyPass(ctx context.Context, addr, uri string, i int) (token string, err error) {
	w := wire{addr: addr}
	defer w.close()
	get := "GET " + uri + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	a, err := w.do(ctx, []byte(get+"\r\n"), time.Now().Add(s.patience))
	if err != nil || a.status != 402 {
		return "", fmt.Errorf("buying a pass: no offer: %s", reason(a, err))
	}
	authorization, err := new(wallet).signed(i, passPrice)
	if err != nil {
		return "", err
	}
	header, err := authorization.header(a.offer, last)
	if err != nil {
		return "", err
	}
	a, err = w.do(ctx, []byte(get+x402.HeaderSignature+": "+header+"\r\n\r\n"), time.Now().Add(s.patience))
	if err != nil || a.status != 200 || a.token == "" {
		return "", fmt.Errorf("buying a pass for %s: %s", devnet.Payer(i).Address, reason(a, err))
	}
	return a.token, nil
}

// measure measures one round of the path.
func (p *path) measure(ctx context.Context, s *stage, warm bool) error {
	before, began := p.process.cpu(), time.Now()
	full, err := p.spin(ctx, hotClients, s.slice, 0)
	if err != nil {
		return err
	}
	took, used := time.Since(began), p.process.cpu()-before
	paced, err := p.spin(ctx, pacedClients, s.paced, pacedEvery)
	if err != nil {
		return err
	}
	p.count += len(full) + len(paced)
	if warm {
		return nil
	}
	p.rates = append(p.rates, float64(len(full))/took.Seconds())
	p.shares = append(p.shares, ratio(float64(used)/float64(time.Microsecond), float64(len(full))))
	p.full, p.paced = append(p.full, full...), append(p.paced, paced...)
	return nil
}

// spin lets clients ask for some time, each on its own connection and at its own pace, and gives how long each answer took.
func (p *path) spin(ctx context.Context, clients int, d, every time.Duration) ([]time.Duration, error) {
	took, failed := make([][]time.Duration, clients), make([]error, clients)
	end := time.Now().Add(d)
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() { took[i], failed[i] = p.client(ctx, i, end, every) })
	}
	running.Wait()
	return slices.Concat(took...), errors.Join(failed...)
}

func (p *path) client(ctx context.Context, i int, end time.Time, every time.Duration) (took []time.Duration, err error) {
	w := wire{addr: p.process.addr}
	defer w.close()
	next := time.Now().Add(every * time.Duration(i) / pacedClients) // not all at the same time
	for {
		if every > 0 && !wait(ctx, next) {
			return took, ctx.Err()
		}
		began := time.Now()
		if began.After(end) {
			return took, nil
		}
		a, err := w.do(ctx, p.requests[i], began.Add(hotPatience))
		if err != nil || a.status != p.status {
			return took, fmt.Errorf("%s: %s", p.name, reason(a, err))
		}
		took = append(took, a.received.Sub(began))
		next = next.Add(every)
	}
}

func (p *path) figures(all []*path) hotFigures {
	f := hotFigures{
		Name: p.name, Full: latenciesOf(p.full), Paced: latenciesOf(p.paced),
		PerSecond: round(median(slices.Clone(p.rates)), 0), CPU: round(median(slices.Clone(p.shares)), 1), Beside: p.beside,
	}
	for _, other := range all {
		if other.name != p.beside {
			continue
		}
		var rates, shares []float64
		for i := range p.rates {
			rates, shares = append(rates, ratio(p.rates[i], other.rates[i])), append(shares, ratio(p.shares[i], other.shares[i]))
		}
		f.Ratio, f.CPURatio = round(median(rates), 3), round(median(shares), 3)
		f.AddedP99 = round(f.Paced.P99-latenciesOf(other.paced).P99, 3)
	}
	return f
}

// profileHot takes CPU profiles of our Caddy on its hot paths, if profiles are wanted.
func (s *stage) profileHot(ctx context.Context, o *shop, paths []*path) error {
	if s.profile == "" {
		return nil
	}
	for _, p := range paths {
		if p.process != o.processes[0] {
			continue
		}
		stop := s.takeProfile(ctx, o, "hot-"+fmt.Sprint(p.status), 0, 5*s.slice)
		_, err := p.spin(ctx, hotClients, 5*s.slice+time.Second, 0)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}
