package sqlite_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// gate stops the writer before one of its statements.
type gate struct {
	mu   sync.Mutex
	pass int           // statements still let through; negative: all
	hit  chan struct{} // closed when the writer stands before the gate
	open chan struct{}
}

// gated opens a store whose writer passes a gate.
func gated(t *testing.T) (*sqlite.Store, *gate) {
	g := &gate{pass: -1}
	s := open(t, filepath.Join(t.TempDir(), "ledger.db"), sqlite.WithStep(sqlite.Options{}, g.step))
	t.Cleanup(g.release)
	return s, g
}

// shut lets pass more statements through and then stops the writer.
func (g *gate) shut(pass int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass, g.hit, g.open = pass, make(chan struct{}), make(chan struct{})
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		close(g.open)
		g.pass, g.open = -1, nil
	}
}

func (g *gate) step(statement func()) {
	g.mu.Lock()
	if g.pass == 0 {
		hit, open := g.hit, g.open
		g.pass = -1
		g.mu.Unlock()
		close(hit)
		<-open
	} else {
		g.pass = max(g.pass, 0) - 1
		g.mu.Unlock()
	}
	statement()
}

type answer struct {
	p   ledger.Payment
	err error
}

// claim claims in the background.
func claim(ctx context.Context, t *testing.T, s *sqlite.Store) (ledger.Payment, <-chan answer) {
	t.Helper()
	p, err := newPayment(1)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan answer, 1)
	go func() {
		got, err := s.Claim(ctx, p, ledger.Change{Hold: time.Minute})
		done <- answer{got, err}
	}()
	return p, done
}

func awaitQueued(s *sqlite.Store, n int) {
	for s.Waiting() < n {
		runtime.Gosched()
	}
}

// The statements of a claim that is alone in its batch; the second finds out what other processes wrote.
const beginStatement, savepointStatement, insertStatement, commitStatement = 0, 2, 3, 6

// Who leaves while the writer has not begun with its job is told so, and nothing is done.
func TestCancelQueued(t *testing.T) {
	s, g := gated(t)
	g.shut(beginStatement)
	ctx, cancel := context.WithCancel(t.Context())
	p, done := claim(ctx, t, s)
	<-g.hit
	other, otherDone := claim(t.Context(), t, s)
	cancel()
	if a := <-done; !errors.Is(a.err, context.Canceled) {
		t.Errorf("left the queue: %v, want context.Canceled", a.err)
	}
	g.release()
	if a := <-otherDone; a.err != nil || a.p.ID != other.ID {
		t.Errorf("its neighbour: %v", a.err)
	}
	if _, err := s.Payment(t.Context(), p.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("it was made all the same: %v", err)
	}
}

// Who wants to leave when its job has begun is told what came of it.
func TestCancelBegun(t *testing.T) {
	for _, statement := range []int{savepointStatement, insertStatement, commitStatement} {
		s, g := gated(t)
		g.shut(statement)
		ctx, cancel := context.WithCancel(t.Context())
		p, done := claim(ctx, t, s)
		<-g.hit
		cancel()
		select {
		case a := <-done:
			t.Errorf("statement %d: answered (%v) before the outcome was known", statement, a.err)
		case <-time.After(20 * time.Millisecond):
		}
		g.release()
		a := <-done
		if got, err := s.Payment(t.Context(), p.ID); a.err != nil || err != nil || got != a.p {
			t.Errorf("statement %d: told %v; then %v", statement, a.err, err)
		}
	}
}

// A disk that hangs does not hold a caller for ever, and the caller is not told that nothing happened.
func TestStalled(t *testing.T) {
	s, g := gated(t)
	s.SetPatience(time.Millisecond)
	g.shut(commitStatement)
	ctx, cancel := context.WithCancel(t.Context())
	p, done := claim(ctx, t, s)
	<-g.hit
	cancel()
	a := <-done
	if !errors.Is(a.err, sqlite.ErrStalled) || errors.Is(a.err, context.Canceled) || a.p.ID != "" {
		t.Errorf("%+v, %v, want ErrStalled", a.p, a.err)
	}
	g.release()
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Payment(t.Context(), p.ID); err != nil {
		t.Errorf("the commit that had hung: %v", err)
	}
}

// Nobody is answered, and nobody reads, what is not committed; and readers don't wait for the writer.
func TestNoAnswerBeforeCommit(t *testing.T) {
	s, g := gated(t)
	g.shut(commitStatement)
	p, done := claim(t.Context(), t, s)
	<-g.hit
	if _, err := s.Payment(t.Context(), p.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("read before the commit: %v", err)
	}
	select {
	case <-done:
		t.Error("answered before the commit")
	case <-time.After(20 * time.Millisecond):
	}
	g.release()
	if a := <-done; a.err != nil {
		t.Error(a.err)
	}
}

// A commit that fails fails all that were in it, also who had been refused for what is now undone.
func TestCommitFails(t *testing.T) {
	s, g := gated(t)
	g.shut(beginStatement)
	_, held := claim(t.Context(), t, s) // its batch waits until all below are queued, and takes them along
	<-g.hit
	p, first := claim(t.Context(), t, s)
	awaitQueued(s, 2)
	again := make(chan answer, 1)
	go func() {
		twin := p
		twin.ID += "x"
		got, err := s.Claim(t.Context(), twin, ledger.Change{})
		again <- answer{got, err}
	}()
	awaitQueued(s, 3)
	spoilt := make(chan error, 1)
	go func() { spoilt <- s.Spoil() }()
	awaitQueued(s, 4)
	g.release()
	if err := <-spoilt; err == nil {
		t.Fatal("the commit did not fail: this test shows nothing")
	}
	for name, done := range map[string]<-chan answer{"held": held, "first": first, "again": again} {
		if a := <-done; a.err == nil || errors.Is(a.err, ledger.ErrExists) || a.p.ID != "" {
			t.Errorf("%s: %+v, %v", name, a.p, a.err)
		}
	}
	if _, err := s.Payment(t.Context(), p.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("of a failed commit there is: %v", err)
	}
	if _, err := s.Claim(t.Context(), p, ledger.Change{}); err != nil {
		t.Errorf("the next commit: %v", err)
	}
}

// Close lets what is queued be written, and answers it.
func TestCloseWritesTheQueue(t *testing.T) {
	s, g := gated(t)
	g.shut(beginStatement)
	p, first := claim(t.Context(), t, s)
	<-g.hit
	_, second := claim(t.Context(), t, s)
	awaitQueued(s, 2)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		t.Errorf("closed (%v) with writes under way", err)
	case <-time.After(20 * time.Millisecond):
	}
	g.release()
	if a := <-first; a.err != nil || a.p.ID != p.ID {
		t.Error(a.err)
	}
	if a := <-second; a.err != nil {
		t.Error(a.err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// What waits is written together: one commit for all.
func TestGroupCommit(t *testing.T) {
	g := &gate{pass: -1}
	var mu sync.Mutex
	statements := 0
	s := open(t, filepath.Join(t.TempDir(), "ledger.db"), sqlite.WithStep(sqlite.Options{}, func(statement func()) {
		mu.Lock()
		statements++
		mu.Unlock()
		g.step(statement)
	}))
	g.shut(beginStatement)
	var all []<-chan answer
	for range 50 {
		_, done := claim(t.Context(), t, s)
		all = append(all, done)
	}
	<-g.hit
	awaitQueued(s, len(all))
	g.release()
	for _, done := range all {
		if a := <-done; a.err != nil {
			t.Error(a.err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// BEGIN, what other processes wrote, and COMMIT once; SAVEPOINT, two INSERTs and RELEASE for each.
	if want := 3 + 4*len(all); statements != want {
		t.Errorf("%d statements for %d claims, want %d", statements, len(all), want)
	}
}
