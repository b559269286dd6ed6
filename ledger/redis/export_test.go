package redis

import (
	"context"
	"net"
	"time"
)

// WithDialer has the store's connections made by dial.
func WithDialer(o Options, dial func(ctx context.Context, network, address string) (net.Conn, error)) Options {
	o.dial = dial
	return o
}

// WithPatience sets how long a call is repeated while no server answers.
func WithPatience(o Options, d time.Duration) Options {
	o.patience = d
	return o
}

// Kill ends the repetitions of calls under way: a process that dies does not try again.
func (s *Store) Kill() { s.killed.Store(true) }

// Decode reads values as a store would.
func Decode(v string) error {
	p, err := parse(v)
	if err != nil {
		return err
	}
	_, err = p.entries()
	return err
}
