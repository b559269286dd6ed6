package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

const (
	childTask = "LEDGER_TEST_TASK"
	childPath = "LEDGER_TEST_PATH"
)

// fillDisk makes writes fail from some time on, as a full disk does, where the system has a way to do that.
var fillDisk = func() {}

// child is the other process: it pays until it is killed, or the disk is full, and prints each answer.
func child(task, path string) {
	out := &lines{w: os.Stdout}
	if task == "full" {
		fillDisk()
	}
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		out.print("open %v", err)
		os.Exit(1)
	}
	out.print("opened")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := uint64(0); task != "some" || n < 8; n++ {
				if err := childPays(s, out, uint64(i)); err != nil {
					out.print("error %v", strings.ReplaceAll(err.Error(), "\n", " "))
					return
				}
			}
		})
	}
	wg.Wait()
	if task == "full" {
		os.Exit(0) // as it stands, without closing
	}
	if err := s.Close(); err != nil {
		out.print("close %v", err)
		os.Exit(1)
	}
	out.print("closed")
}

// childPays is one payment with its steps, each printed when it is answered and not before.
func childPays(s *sqlite.Store, out *lines, wallet uint64) error {
	ctx := context.Background()
	p, err := newPayment(wallet)
	if err != nil {
		return err
	}
	p, err = s.Claim(ctx, p, ledger.Change{Actor: "request", Hold: time.Minute})
	if err != nil {
		return err
	}
	out.print("payment %s %d", p.ID, p.Version)
	if err := s.Record(ctx, newTransaction(p), "request"); err != nil {
		return err
	}
	out.print("sent %s %d", p.ID, p.Version+1)
	for _, changes := range serve(p.Version+1, p.Hold.Fence) {
		if p, err = s.Update(ctx, p.ID, changes.version, changes.list...); err != nil {
			return err
		}
		out.print("payment %s %d", p.ID, p.Version)
	}
	return nil
}

type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) print(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, format+"\n", args...)
}

// process is a child with the lines that it has printed.
type process struct {
	cmd   *exec.Cmd
	lines chan string
}

func start(t *testing.T, task, path string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childTask+"="+task, childPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, lines: make(chan string)}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// wait collects what the child still prints, and its end.
func (p *process) wait() (rest []string, err error) {
	for l := range p.lines {
		rest = append(rest, l)
	}
	return rest, p.cmd.Wait()
}

// acknowledged is what children were answered: each payment with its highest version, and whether its
// transaction was recorded.
type acknowledged struct {
	versions map[string]uint64
	sent     map[string]bool
}

func (a *acknowledged) note(t *testing.T, printed []string) {
	t.Helper()
	for _, l := range printed {
		var what, id string
		var version uint64
		if n, _ := fmt.Sscanf(l, "%s %s %d", &what, &id, &version); n == 3 && (what == "payment" || what == "sent") {
			a.versions[id] = max(a.versions[id], version)
			a.sent[id] = a.sent[id] || what == "sent"
		} else if !strings.HasPrefix(l, "opened") && !strings.HasPrefix(l, "closed") && !strings.HasPrefix(l, "error ") {
			t.Errorf("the child said %q", l)
		}
	}
}

// check finds all of it in the file, with whole trails, and no payment half made.
func (a *acknowledged) check(t *testing.T, path string) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatalf("opening after the crash: %v", err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for id, version := range a.versions {
		p, err := s.Payment(t.Context(), id)
		if err != nil || p.Version < version {
			t.Fatalf("%s was acknowledged in version %d, now %d: %v", id, version, p.Version, err)
		}
		trail, err := s.Audit(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyAudit(&p, trail); err != nil {
			t.Fatal(err)
		}
		txs, err := s.Transactions(t.Context(), id)
		if err != nil || a.sent[id] && len(txs) != 1 {
			t.Fatalf("%s: transactions %v, %v", id, txs, err)
		}
		for _, tx := range txs {
			if next, _, err := s.Nonce(t.Context(), tx.ChainID, tx.Wallet); err != nil || next <= tx.Nonce {
				t.Fatalf("nonce %d was used, the next is said to be %d: %v", tx.Nonce, next, err)
			}
		}
	}
	for _, what := range []string{"PRAGMA integrity_check", "PRAGMA foreign_key_check"} {
		got, err := s.Ask(what)
		if err != nil || got != "" && got != "ok" {
			t.Errorf("%s: %s, %v", what, got, err)
		}
	}
}

// A process that is killed at any moment has lost nothing that it had answered, however often.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	acks := &acknowledged{versions: map[string]uint64{}, sent: map[string]bool{}}
	// A slow machine answers less between two kills, and gets more of them.
	for round := 0; round < 15 || len(acks.versions) < 50 && round < 150; round++ {
		p := start(t, "pay", path)
		for l := range p.lines { // the opening is killed too, every third time
			acks.note(t, []string{l})
			if l == "opened" || round%3 == 0 {
				break
			}
		}
		time.AfterFunc(time.Duration(rand.IntN(80_000))*time.Microsecond, func() { _ = p.cmd.Process.Kill() })
		rest, err := p.wait()
		if err == nil {
			t.Fatal("the child ended by itself")
		}
		acks.note(t, rest)
		acks.check(t, path)
	}
	if len(acks.versions) < 50 {
		t.Errorf("only %d payments were acknowledged: this test shows nothing", len(acks.versions))
	}
}

// Processes that start on a file that is not there yet, at once, both make it, and both write.
func TestTwoProcesses(t *testing.T) {
	for range 3 {
		path := filepath.Join(t.TempDir(), "new", "ledger.db")
		acks := &acknowledged{versions: map[string]uint64{}, sent: map[string]bool{}}
		var children []*process
		for range 3 {
			children = append(children, start(t, "some", path))
		}
		for _, p := range children {
			rest, err := p.wait()
			if err != nil {
				t.Errorf("child: %v", err)
			}
			for _, l := range rest {
				if strings.HasPrefix(l, "error ") {
					t.Errorf("the child said %q", l)
				}
			}
			acks.note(t, rest)
		}
		if len(acks.versions) != 3*8*8 {
			t.Errorf("%d payments, want %d", len(acks.versions), 3*8*8)
		}
		acks.check(t, path)
	}
}

// A file that may not grow: those whose write fails are told so, and when there is room again all goes on.
func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, path, sqlite.Options{})
	var made, refused []ledger.Payment
	for range 3 {
		// The limit belongs to the connection, which the writer gives up after such an error.
		if err := s.Exec("PRAGMA max_page_count = 60"); err != nil {
			t.Fatal(err)
		}
		for full := len(refused) + 1; len(refused) < full && len(made) < 2000; {
			p, err := newPayment(1)
			if err != nil {
				t.Fatal(err)
			}
			switch got, err := s.Claim(t.Context(), p, ledger.Change{Hold: time.Minute}); {
			case err == nil:
				made = append(made, got)
			case errors.Is(err, ledger.ErrExists), errors.Is(err, ledger.ErrTransition), got.ID != "":
				t.Fatalf("claim on a full disk: %+v, %v", got, err)
			default:
				refused = append(refused, p)
			}
		}
	}
	if len(made) < 10 || len(refused) != 3 {
		t.Fatalf("%d claims made, %d refused", len(made), len(refused))
	}
	for _, p := range refused {
		if _, err := s.Payment(t.Context(), p.ID); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("a refused claim is there: %v", err)
		}
		if _, err := s.Claim(t.Context(), p, ledger.Change{}); err != nil {
			t.Errorf("claim with room again: %v", err)
		}
	}
	for _, p := range made {
		if got, err := s.Payment(t.Context(), p.ID); err != nil || got != p {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
