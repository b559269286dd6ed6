package ledger_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func openFile(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{Now: (&clock{start}).Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// copyAndKill runs the copying process, kills it when it has said lines lines, and reports whether it came to its end before.
func copyAndKill(t *testing.T, from, to string, lines int) (done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFrom+"="+from, childTo+"="+to)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := 0
	for s := bufio.NewScanner(out); s.Scan(); said++ {
		if said == lines {
			_ = cmd.Process.Kill()
			break
		}
		done = done || s.Text() == "done"
	}
	if err := cmd.Wait(); err != nil && said < lines {
		t.Fatalf("the copy ended by itself: %v", err)
	}
	return done
}

// A process that copies from one file to another is killed again and again, each time a bit further on, and at last ends
// equal. Until then nothing can be claimed in the destination.
func TestCopyKilled(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "to.db")
	m, c := memory(t, 120)
	furnish(t, m)
	file := openFile(t, from)
	if _, err := ledger.Copy(t.Context(), m, file, ledger.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	want := shown(t, file)
	if want != shown(t, m) {
		t.Fatal("a file holds something else than the memory it was copied from")
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	nothing := shown(t, storetest.NewMemory(c.Now, false))
	kills := 0
	for lines := 0; ; lines += 7 {
		if lines > 1000 {
			t.Fatal("the copy does not come to its end")
		}
		done := copyAndKill(t, from, to, lines)
		file := openFile(t, to)
		got, ready := shown(t, file), file.Ping(t.Context()) == nil
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		switch {
		case done && got == want && ready:
			if kills < 5 {
				t.Errorf("it was killed %d times: this test shows nothing", kills)
			}
			return
		case done:
			t.Fatalf("the copy is done; equal: %v, ready: %v", got == want, ready)
		case ready && got != want && got != nothing:
			t.Fatal("half a copy can be used")
		}
		kills++
	}
}
