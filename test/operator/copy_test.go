package operator

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// exported is the whole ledger of a store, as a command writes it.
func (o *office) exported(t *testing.T, store string) string {
	t.Helper()
	r := o.run(t, t.TempDir(), "audit", "export", "--store", store)
	if r.code != 0 {
		t.Fatalf("exporting %s: code %d, %s", store, r.code, r.err)
	}
	return r.out
}

// copyTo copies the ledger of o to a store, and to it again, which changes nothing. It gives what was said the first time.
func (o *office) copyTo(t *testing.T, to string, more ...string) (said string) {
	t.Helper()
	from := "sqlite:" + o.path()
	for _, again := range []bool{false, true} {
		r := o.run(t, t.TempDir(), append([]string{"ledger", "copy", "--from", from, "--to", to}, more...)...)
		if !again {
			said = r.out + r.err
		}
		report := result[ledger.CopyReport](t, r)
		if report.Payments != 5 || report.Anchors != 1 || report.Wallets != 1 || (report.Copied == 5) == again || report.Audit.Found != 0 {
			t.Errorf("again %t: %s", again, r.out)
		}
		if !strings.Contains(r.err, "complete") || !strings.Contains(r.err, "payments: 5") {
			t.Errorf("says %s", r.err)
		}
	}
	if got, want := o.exported(t, to), o.exported(t, from); got != want {
		t.Errorf("the copy's export has %d bytes, the original's %d:\n%s", len(got), len(want), got)
	}
	one := result[opPage](t, o.run(t, o.Dir, "payments", "list", "--store", to, "--limit", "1")).Payments[0].ID
	shown := func(store string) string { return o.run(t, o.Dir, "payments", "show", one, "--store", store).out }
	if got, want := shown(to), shown(from); got != want || len(got) < 500 {
		t.Errorf("the copy shows\n%s\ninstead of\n%s", got, want)
	}
	return said
}

// A ledger moves, and the shop goes on with the copy.
func TestOperatorCopies(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 4)
	o.anchor(t)
	to := filepath.Join(o.Dir, "copy.db")
	o.copyTo(t, "sqlite:"+to)
	moved := o.options
	moved.Store = "sqlite " + to
	o.reload(t, moved)
	if a := rig.NewBuyer(t, 1).Get(o.URL("/weather/0?city=berlin"), "Payment-Signature", o.headers[0]); a.Status != 402 {
		t.Errorf("what was used before the move is answered %d", a.Status)
	}
	a, _ := rig.NewBuyer(t, 1).Buy(o.URL("/weather/0?city=berlin"))
	if a.Status != 200 {
		t.Errorf("after the move: %d %s", a.Status, a.Body)
	}
	// Both ledgers have gone their own way, so neither may become a copy of the other.
	r := o.run(t, o.Dir, "ledger", "copy", "--from", "sqlite:"+o.path(), "--to", "sqlite:"+to)
	if e := decode[opError](t, r.out).Error; r.code != 2 || e.Code != "ledger_in_use" {
		t.Errorf("over a ledger in use: code %d, %s%s", r.code, r.out, r.err)
	}
}

// A copy that is killed goes on where it was; until it is complete, nothing can be claimed in it.
func TestOperatorCopyKilled(t *testing.T) {
	o := newOffice(t)
	const many = 3000
	fill(t, o.store(t), many)
	to := filepath.Join(t.TempDir(), "copy.db")
	args := []string{"x402", "ledger", "copy", "--from", "sqlite:" + o.path(), "--to", "sqlite:" + to, "--page-size", "1"}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for copied := 0; copied < 20; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(to); err != nil {
			continue
		}
		r := o.run(t, o.Dir, "payments", "list", "--limit", "20", "--store", "sqlite:"+to)
		if copied = len(decode[opPage](t, r.out).Payments); r.code != 0 {
			t.Fatalf("reading a copy that is being made: %s", r.err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatalf("the copy was complete before it was killed:\n%s", out.String())
	}
	half := o.options
	half.Store = "sqlite " + to
	o.reload(t, half)
	b := rig.NewBuyer(t, 2)
	offer := b.Offer(o.URL("/weather"))
	if a := b.Get(o.URL("/weather"), "Payment-Signature", b.Sign(offer, 0)); a.Status != 503 {
		t.Errorf("a payment into half a copy is answered %d %s", a.Status, a.Body)
	}
	o.reload(t, o.options)
	r := o.run(t, o.Dir, "ledger", "copy", "--from", "sqlite:"+o.path(), "--to", "sqlite:"+to)
	if report := result[ledger.CopyReport](t, r); report.Payments != many || report.Copied >= many-10 || report.Copied == 0 {
		t.Errorf("gone on: %s", r.out)
	}
	if o.exported(t, "sqlite:"+to) != o.exported(t, "sqlite:"+o.path()) {
		t.Error("the copy is not equal to the original")
	}
}
