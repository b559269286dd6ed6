//go:build interop

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
)

// small is what a machine of any size measures within a minute.
func small(t *testing.T) config {
	t.Helper()
	bed.Install(t, "peer")
	c, err := configFrom(func(name string) string {
		return map[string]string{"BENCH_PAYERS": "1,4", "BENCH_BLOCKS": "0,1s", "BENCH_SECONDS": "2"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	c.fewest, c.rounds, c.slice, c.paced = 2, 1, 200*time.Millisecond, 200*time.Millisecond
	return c
}

// Each system sells on each chain, every payment that is answered is on the chain once, and nothing else is. How fast they
// are is not asked here.
func TestBench(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := small(t)
	r, err := measure(t.Context(), c, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(c.payers) * len(c.blocks); len(r.Runs) != want {
		t.Errorf("%d cells were measured, want %d", len(r.Runs), want)
	}
	for _, f := range r.Runs {
		name := f.System + ", " + kind(time.Duration(f.Block*float64(time.Second))) + ", " + strconv.Itoa(f.Payers)
		if f.Sales == 0 || f.Success != 1 || f.Verdict.Answered < f.Sales {
			t.Errorf("%s: %d sales, %d answered, %v", name, f.Sales, f.Verdict.Answered, f.Failures)
		}
		if v := f.Verdict; len(v.Wrong) > 0 || len(v.Unanswered) > 0 || v.Transfers != v.Answered {
			t.Errorf("%s: chain and answers: %+v", name, v)
		}
		if f.Transactions == 0 || f.Transactions > f.Verdict.Transfers || f.Reverted > 0 || f.Gas < 21_000/float64(f.Verdict.Transfers) {
			t.Errorf("%s: %d transactions, %d reverted, %.0f gas each", name, f.Transactions, f.Reverted, f.Gas)
		}
	}
	if r.Hot == nil || len(r.Hot.Paths) != 7 || r.Hot.Before.Heap == 0 || r.Hot.Requests == 0 {
		t.Fatalf("the hot paths: %+v", r.Hot)
	}
	for _, f := range r.Hot.Paths {
		if f.PerSecond == 0 || f.Paced.P50 == 0 || (f.Beside != "") != (f.Ratio > 0) {
			t.Errorf("the hot paths: %+v", f)
		}
	}
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{"reverse_proxy", "blocks at once", "a block every 1s", partOurs, partPeer} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &out)
		}
	}
	if err := r.save(filepath.Join(t.TempDir(), "figures.json")); err != nil {
		t.Error(err)
	}
}

// stopper stops what writes to it, a while after it has said something.
type stopper struct {
	after string
	stop  func()
}

func (s *stopper) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.after) {
		time.AfterFunc(time.Second, s.stop)
	}
	return len(p), nil
}

// Whoever interrupts it is left with no process.
func TestBenchIsInterrupted(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, after := range []string{"round 0", "1/4"} { // in the hot paths; while the peer is measured
		c := small(t)
		c.blocks, c.payers, c.rounds = c.blocks[:1], []int{4, 4}, 1000
		if after != "round 0" {
			c.only = []string{partOurs, partPeer}
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := measure(ctx, c, &stopper{after: after, stop: cancel}); err == nil {
			t.Error("it was not interrupted")
		}
		cancel()
		if left := children(t); len(left) > 0 {
			t.Errorf("interrupted after %q, it leaves %q", after, left)
		}
	}
}

// children are the processes that we have started and that still run.
func children(t *testing.T) (left []string) {
	t.Helper()
	ps := exec.Command("ps", "-A", "-o", "ppid=,pid=,args=")
	out, err := ps.Output()
	if err != nil {
		t.Fatal("listing processes:", err)
	}
	us := strconv.Itoa(os.Getpid())
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[0] == us && fields[1] != strconv.Itoa(ps.Process.Pid) {
			left = append(left, strings.Join(fields[1:], " "))
		}
	}
	return left
}
