package caddymodule

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// counted is a pooled value that knows how often it was closed.
type counted struct {
	closed atomic.Int32
	err    error
}

func (c *counted) Destruct() error {
	c.closed.Add(1)
	return c.err
}

type other struct{ counted }

func acquired(t *testing.T, key string, c *counted) *Lease[*counted] {
	t.Helper()
	l, err := Acquire(key, func() (*counted, error) { return c, nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func released(t *testing.T, l *Lease[*counted]) {
	t.Helper()
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func inPool(key string) bool {
	_, ok := pool.References(key)
	return ok
}

// Who comes later finds the same value; it is closed once, with the last lease, whatever the order.
func TestLeaseShares(t *testing.T) {
	first := new(counted)
	a := acquired(t, t.Name(), first)
	b, err := Acquire(t.Name(), func() (*counted, error) { t.Error("made twice"); return nil, nil })
	if err != nil || a.Value() != b.Value() {
		t.Fatal(err, a.Value() == b.Value())
	}
	released(t, a)
	if first.closed.Load() != 0 {
		t.Error("closed under its user")
	}
	released(t, b)
	if first.closed.Load() != 1 || inPool(t.Name()) {
		t.Errorf("closed %d times, in the pool: %v", first.closed.Load(), inPool(t.Name()))
	}
	c := acquired(t, t.Name(), new(counted))
	if c.Value() == first {
		t.Error("a closed value is given again")
	}
	released(t, c)
}

// Cleanup may come twice: the second takes nothing from others.
func TestLeaseReleasedTwice(t *testing.T) {
	value := new(counted)
	a, b := acquired(t, t.Name(), value), acquired(t, t.Name(), value)
	released(t, a)
	released(t, a)
	if value.closed.Load() != 0 {
		t.Error("a second release took the value from another")
	}
	released(t, b)
	released(t, b)
	if value.closed.Load() != 1 {
		t.Errorf("closed %d times", value.closed.Load())
	}
}

// A lease that was never acquired has nothing to give back, though others have the same key.
func TestLeaseNeverAcquired(t *testing.T) {
	value := new(counted)
	a := acquired(t, t.Name(), value)
	var none *Lease[*counted]
	released(t, none)
	released(t, new(Lease[*counted]))
	failed, err := Acquire(t.Name()+" broken", func() (*counted, error) { return nil, errors.New("no") })
	if err == nil || !strings.Contains(err.Error(), "no") || failed != nil {
		t.Errorf("%v, %v", failed, err)
	}
	released(t, failed)
	if inPool(t.Name() + " broken") {
		t.Error("what could not be made is in the pool")
	}
	again := acquired(t, t.Name()+" broken", new(counted)) // the next one may try
	released(t, again)
	if value.closed.Load() != 0 || a.Value() != value {
		t.Error("the value of another is gone")
	}
	released(t, a)
}

// A key that stands for something else is refused, and what is there stays with whom it belongs to.
func TestLeaseOfAnotherKind(t *testing.T) {
	value := new(counted)
	a := acquired(t, t.Name(), value)
	b, err := Acquire(t.Name(), func() (*other, error) { return new(other), nil })
	if err == nil || b != nil || !strings.Contains(err.Error(), "it is in use as a *caddymodule.counted") {
		t.Errorf("%v, %v", b, err)
	}
	if err := b.Release(); err != nil || value.closed.Load() != 0 {
		t.Error("the value of another was closed", err)
	}
	released(t, a)
	if value.closed.Load() != 1 {
		t.Errorf("closed %d times: the refused one still counts", value.closed.Load())
	}
}

// What closing says reaches whom it concerns.
func TestLeaseTellsWhatClosingSays(t *testing.T) {
	l := acquired(t, t.Name(), &counted{err: errors.New("disk on fire")})
	if err := l.Release(); err == nil || !strings.Contains(err.Error(), "closing "+t.Name()+": disk on fire") {
		t.Error(err)
	}
}

// Many at once get one value, and it is closed when the last of them is done.
func TestLeaseConcurrently(t *testing.T) {
	var made, tooEarly atomic.Int32
	var users sync.WaitGroup
	for range 64 {
		users.Go(func() {
			for range 50 {
				l, err := Acquire(t.Name(), func() (*counted, error) { made.Add(1); return new(counted), nil })
				if err != nil {
					t.Error(err)
					return
				}
				if l.Value().closed.Load() != 0 {
					tooEarly.Add(1)
				}
				_ = l.Release()
			}
		})
	}
	users.Wait()
	if tooEarly.Load() != 0 || inPool(t.Name()) {
		t.Errorf("%d of %d values were closed under their users; still there: %v", tooEarly.Load(), made.Load(), inPool(t.Name()))
	}
}
