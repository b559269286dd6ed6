// Package bed is what the interop tests stand on: other people's clients, run by Node.js, and chains for them to pay on,
// ours and anvil.
package bed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	nodeMin = 20
	// installTimeout is for slow networks: the largest of the packages brings 700 MB.
	installTimeout = 10 * time.Minute
	// runTimeout bounds what takes seconds where the machine is not busy.
	runTimeout = 3 * time.Minute
)

// missing is what a developer reads whose machine has no Node.js that will do.
const missing = `Node.js %d or newer with npm is needed: %s
  Debian 13, Ubuntu 25.04:  apt install nodejs npm
  Debian 12:                its own is 18, which is too old; take it from https://deb.nodesource.com or https://nodejs.org
  Fedora:                   dnf install nodejs nodejs-npm
  macOS:                    brew install node`

// Install makes sure that the locked packages of the folder dir are installed. It fails the test where that can't be done.
func Install(t testing.TB, dir string) {
	t.Helper()
	if err := checkNode(t.Context()); err != nil {
		t.Fatalf(missing, nodeMin, err)
	}
	stamp := filepath.Join(dir, "node_modules", ".installed")
	if newer(t, stamp, filepath.Join(dir, "package-lock.json")) {
		return
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in %s: %v\n%s", dir, err, out)
	}
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("npm ci in %s took %s", dir, time.Since(started).Round(time.Second))
}

func checkNode(ctx context.Context) error {
	if _, err := exec.LookPath("npm"); err != nil {
		return fmt.Errorf("looking for npm: %w", err)
	}
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("looking for node: %w", err)
	}
	version := strings.TrimSpace(string(out))
	first, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if major, err := strconv.Atoi(first); err != nil || major < nodeMin {
		return fmt.Errorf("this is %s", version)
	}
	return nil
}

// newer reports whether a is there and not older than b, which must be there.
func newer(t testing.TB, a, b string) bool {
	t.Helper()
	want, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat(a)
	return err == nil && !got.ModTime().Before(want.ModTime())
}

// Run runs a script of the folder dir: it gets in as JSON, and prints JSON that goes into out.
func Run(t testing.TB, dir, script string, in, out any) {
	t.Helper()
	order, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", script)
	cmd.Dir, cmd.Stdin, cmd.Stderr, cmd.WaitDelay = dir, bytes.NewReader(order), &stderr, 5*time.Second
	printed, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", script, err, &stderr)
	}
	if err := json.Unmarshal(printed, out); err != nil {
		t.Fatalf("node %s printed %q: %v", script, printed, err)
	}
}
