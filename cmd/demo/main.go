// Command demo shows one payment from the 402 to the upstream, on a chain that runs in its own process: a shop behind
// Caddy with this module, a buyer with this project's client, and what each of them, the chain and the ledger say about
// it. Whatever it tells it has checked; if something does not hold, it exits with 1.
//
//	go run ./cmd/demo           # tells the story and ends
//	KEEP=1 go run ./cmd/demo    # stays open afterwards, to be paid by hand
//
// It needs no network and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	// patience bounds the whole story: on a slow machine it takes seconds.
	patience = 5 * time.Minute
	// longest bounds a wait for what follows within a moment where the machine is not busy.
	longest = time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, options{keep: isSet("KEEP"), colour: isTerminal(os.Stdout) && !isSet("NO_COLOR")})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	// keep leaves everything running after the story until the context ends.
	keep bool
	// colour says that out is a terminal that wants colours.
	colour bool
}

// run tells the story on out. It gives an error if anything in it does not hold.
func run(ctx context.Context, out io.Writer, o options) (err error) {
	began := time.Now()
	telling, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := newStage(telling)
	if err != nil {
		return fmt.Errorf("setting up: %w", err)
	}
	defer func() { err = errors.Join(err, s.close()) }()

	p := &paper{out: out, colour: o.colour}
	st := newStory(p, s)
	if err := st.tell(telling, steps); err != nil {
		return err
	}
	p.say("")
	p.strong(fmt.Sprintf("All %d claims hold. It took %.1f seconds.", p.claims, time.Since(began).Seconds()))
	st.byHand(o.keep)
	if o.keep {
		<-ctx.Done()
		p.say("")
		p.say("Closing.")
	}
	return p.err
}

// isSet reports whether an environment variable says yes.
func isSet(name string) bool {
	v := os.Getenv(name)
	return v != "" && v != "0"
}

// isTerminal reports whether f is a terminal, as far as can be told without help.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
