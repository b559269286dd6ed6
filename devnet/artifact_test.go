//go:build interop

package devnet_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The committed contracts.json is what the sources beside it give. Needs Node.js >= 20, npm and, the first
// time, npm's registry: hence the build tag.
func TestArtifactIsWhatTheSourceGives(t *testing.T) {
	if version := run(t, "node", "--version"); major(version) < 20 {
		t.Fatalf("compiling the contracts needs Node.js 20 or later, this is %s", version)
	}
	run(t, "npm", "ci", "--no-audit", "--no-fund")
	fresh := filepath.Join(t.TempDir(), "contracts.json")
	run(t, "node", "compile.mjs", fresh)
	got, err := os.ReadFile(fresh)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("contracts/contracts.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("contracts.json is not what the sources give: run `npm ci && npm run compile` in devnet/contracts")
	}
}

// run runs a command among the contracts and gives what it printed.
func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("compiling the contracts needs Node.js 20 or later with npm: %v", err)
	}
	command := exec.CommandContext(t.Context(), name, arguments...)
	command.Dir = "contracts"
	output, err := command.Output()
	if err != nil {
		var stderr string
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = string(exit.Stderr)
		}
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, stderr)
	}
	return strings.TrimSpace(string(output))
}

// major reads the first number of a version such as v20.1.2.
func major(version string) int {
	first, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}
