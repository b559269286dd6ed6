package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// ErrUnanswered: the server did not answer in time, or not enough replicas (or the disk) have confirmed what was
// written. Whether the change was made is not known.
var ErrUnanswered = errors.New("ledger/redis: the change was not confirmed")

const (
	// patience is how long a call is repeated while no server answers it. All scripts can be repeated.
	patience = 10 * time.Second
	// confirmation is how long replicas, and the disk, are awaited each.
	confirmation = 3 * time.Second
)

// ask has the calls answered, those of one server in one round trip. It repeats what was not answered; an error of it, other
// than a context's, leaves open what was done.
func (s *Store) ask(ctx context.Context, calls ...*call) error {
	return s.askAt(ctx, s.clock.now(), calls...)
}

func (s *Store) askAt(ctx context.Context, now time.Time, calls ...*call) error {
	deadline := time.Now().Add(s.patience)
	pause := 5 * time.Millisecond
	for {
		if err := ctx.Err(); err != nil && !reached(calls) {
			return err
		}
		left := s.round(ctx, now, calls)
		if len(left) == 0 {
			return first(calls)
		}
		if time.Now().Add(pause).After(deadline) || s.killed.Load() {
			return outcome(left)
		}
		s.sleep(ctx, pause, reached(calls))
		pause = min(2*pause, 200*time.Millisecond) + time.Duration(rand.Int64N(int64(5*time.Millisecond))) //nolint:gosec // no secret
	}
}

// sleep waits a moment; a context cuts it short as long as nothing was sent.
func (s *Store) sleep(ctx context.Context, d time.Duration, regardless bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	if regardless {
		<-t.C
		return
	}
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// reached reports whether one of the calls writes and may have been made.
func reached(calls []*call) bool {
	for _, c := range calls {
		if c.write && c.sent {
			return true
		}
	}
	return false
}

// first is the first error of calls that were answered.
func first(calls []*call) error {
	for _, c := range calls {
		if c.err != nil && c.write && c.sent && !errors.Is(c.err, ErrUnanswered) {
			// What was refused now may have been done before, when its answer was lost.
			return fmt.Errorf("%w: %v", ErrUnanswered, c.err) //nolint:errorlint // see outcome
		}
		if c.err != nil {
			return named(c.err)
		}
	}
	return nil
}

// named says whose error it is, if it does not itself.
func named(err error) error {
	if errors.Is(err, ErrServer) || errors.Is(err, ErrUnanswered) {
		return err
	}
	return fmt.Errorf("ledger/redis: %w", err)
}

func outcome(left []*call) error {
	if reached(left) {
		// Not wrapped: a timeout of the network says that it is a context's, and that would say that nothing was done.
		return fmt.Errorf("%w: %v", ErrUnanswered, left[0].err) //nolint:errorlint // see above
	}
	return fmt.Errorf("ledger/redis: no server answers: %w", left[0].err)
}

// round sends what is not answered yet, and gives what then is still not.
func (s *Store) round(ctx context.Context, now time.Time, calls []*call) []*call {
	groups := map[*node][]*call{}
	for _, c := range calls {
		if c.done {
			continue
		}
		n, err := s.servers.at(c.ask), error(nil)
		if n == nil {
			c.ask = ""
			n, err = s.servers.node(ctx, c.keys[0])
		}
		if err != nil {
			c.err = err
			s.servers.stale(ctx)
			continue
		}
		groups[n] = append(groups[n], c)
	}
	if len(groups) == 1 {
		for n, group := range groups {
			s.send(ctx, n, group, now)
		}
	} else {
		var wg sync.WaitGroup
		for n, group := range groups {
			wg.Go(func() { s.send(ctx, n, group, now) })
		}
		wg.Wait()
	}
	var left []*call
	for _, c := range calls {
		if !c.done {
			left = append(left, c)
		}
	}
	return left
}

// passing are the scripts whose writes matter for a while only: nothing is wrong when a crash undoes them.
var passing = map[string]bool{"adopt": true, "due": true, "lease": true, "recheck": true, "expire": true, "lapse": true, "sweepobjects": true}

// send makes one round trip to one server. What was written there is awaited on the same connection: WAIT and WAITAOF speak
// of what their own connection has written.
func (s *Store) send(ctx context.Context, n *node, calls []*call, now time.Time) {
	if reached(calls) {
		ctx = context.WithoutCancel(ctx)
	}
	server := "1"
	if s.clock.fixed != nil {
		server = "0"
	}
	micros := strconv.FormatInt(now.UnixMicro(), 10)
	doubted := n.doubted()
	confirms, proof := false, ""
	pipe := n.client.Pipeline()
	cmds := make([]*goredis.Cmd, len(calls))
	for i, c := range calls {
		if c.ask != "" { // for the next command only
			pipe.Do(ctx, "asking")
		}
		if c.whole {
			cmds[i] = pipe.Eval(ctx, c.script.source, c.keys, c.arguments(micros, server)...)
		} else {
			cmds[i] = pipe.EvalSha(ctx, c.script.sha, c.keys, c.arguments(micros, server)...)
		}
		writes := c.write && !passing[c.script.name]
		confirms = confirms || writes
		if c.prove || doubted && (writes || c.decides) {
			confirms, proof = true, c.keys[0]+"~"
		}
	}
	var confirmed func() error
	if confirms {
		if err := s.servers.ready(ctx, n); err != nil {
			for _, c := range calls {
				s.settle(ctx, c, goredis.NewCmdResult(nil, err))
			}
			return
		}
		confirmed = n.confirm(ctx, pipe, proof)
	}
	_, err := pipe.Exec(ctx) // each command has its error, unless a new connection was refused
	for i, c := range calls {
		if err != nil && cmds[i].Err() == nil && cmds[i].Val() == nil {
			cmds[i].SetErr(err)
		}
		s.settle(ctx, c, cmds[i])
	}
	if confirmed == nil {
		return
	}
	if err := confirmed(); err != nil {
		for _, c := range calls {
			if c.done && c.err == nil && (c.write || c.decides) && c.what() != "CLOCK" {
				c.err = err
			}
		}
	}
}

// settle decides what the answer of one call means.
func (s *Store) settle(ctx context.Context, c *call, cmd *goredis.Cmd) {
	reply, err := cmd.Result()
	c.err, c.ask = err, ""
	var said goredis.Error
	switch {
	case err == nil:
		c.done = true
		if list, ok := reply.([]any); ok {
			c.reply = list
		} else {
			c.err = fmt.Errorf("the script %s answered no list", c.script.name)
		}
	case errors.Is(err, ErrServer):
		c.done = true
	case errors.As(err, &said) && !errors.Is(err, goredis.ErrClosed):
		s.refused(ctx, c, said.Error())
	case neverSent(err):
	default:
		c.sent = true
		s.servers.stale(ctx)
	}
}

// refused decides what the server's error means: it did nothing, and may do it elsewhere or later.
func (s *Store) refused(ctx context.Context, c *call, message string) {
	word, rest, _ := strings.Cut(message, " ")
	switch word {
	case "NOSCRIPT":
		c.whole = true
	case "ASK":
		_, c.ask, _ = strings.Cut(rest, " ")
	case "MOVED", "READONLY", "CLUSTERDOWN", "MASTERDOWN":
		s.servers.stale(ctx)
	case "LOADING", "TRYAGAIN", "BUSY", "NOREPLICAS":
	default:
		// A script says so of a slot that is just moving; see wrong in prelude.lua.
		c.done = !strings.Contains(message, "non local key")
	}
}

// neverSent reports whether err came up before anything was sent.
func neverSent(err error) bool {
	var d *dialError
	return errors.As(err, &d) || errors.Is(err, goredis.ErrPoolTimeout) || errors.Is(err, goredis.ErrPoolExhausted) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, goredis.ErrClosed)
}

// one makes one call and gives its error.
func (s *Store) one(ctx context.Context, c *call) error { return s.ask(ctx, c) }

// dated makes calls that make gives for a time until that time is the server's. What was refused because of the time changed nothing.
func (s *Store) dated(ctx context.Context, build func(now time.Time) ([]*call, error)) error {
	for range 20 {
		now := s.clock.now()
		calls, err := build(now)
		if err != nil || len(calls) == 0 {
			return err
		}
		if err := s.askAt(ctx, now, calls...); err != nil {
			return err
		}
		if !s.wrong(calls) {
			return nil
		}
		if reached(calls) {
			// It may have been made before it was refused: the next attempt finds out.
			ctx = context.WithoutCancel(ctx)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return errors.New("ledger/redis: the server's clock is never what it was when it was last heard")
}

// wrong corrects the clock if one of the calls was refused because of its time.
func (s *Store) wrong(calls []*call) bool {
	found := false
	for _, c := range calls {
		if c.what() != "CLOCK" {
			continue
		}
		if micros, err := strconv.ParseInt(c.text(1), 10, 64); err == nil {
			s.clock.correct(micros)
		}
		found = true
	}
	return found
}

// enter begins a call of the store, which leave ends.
func (s *Store) enter(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ledger.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) leave() { s.calls.Done() }
