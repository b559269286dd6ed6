//go:build interop

package xcaddy

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What somebody who builds with xcaddy must find in the binary.
var modules = []string{
	"x402",
	"http.handlers.x402",
	"http.handlers.x402_service",
	"admin.api.x402",
	"x402.stores.sqlite",
	"x402.stores.postgres",
	"x402.stores.redis",
	"x402.settlers.wallet",
	"x402.signers.key",
	"x402.signers.aws_kms",
	"caddy.logging.encoders.x402_redact",
}

// xcaddy writes this main, with a blank import for each --with.
const mainGo = `package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/caddy-x402/caddy-x402"
)

func main() {
	caddycmd.Main()
}
`

func TestThrowawayBuildHasAllModules(t *testing.T) {
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), mainGo)
	write(t, filepath.Join(dir, "go.mod"), throwawayMod(t, repo))
	sums, err := os.ReadFile(filepath.Join(repo, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "go.sum"), string(sums))

	bin := filepath.Join(dir, "caddy")
	// -mod=mod lets go fill in go.mod, as xcaddy does; with our go.sum it asks nobody.
	run(t, dir, "go", "build", "-mod=mod", "-trimpath", "-o", bin, ".")

	listed := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(run(t, dir, bin, "list-modules")))
	for lines.Scan() {
		listed[strings.TrimSpace(lines.Text())] = true
	}
	if !listed["http.handlers.reverse_proxy"] {
		t.Error("the binary has not even Caddy's own modules")
	}
	for _, m := range modules {
		if !listed[m] {
			t.Errorf("the binary has no module %s", m)
		}
	}
	if out := run(t, dir, bin, "build-info"); !bytes.Contains(out, []byte("CGO_ENABLED=0")) {
		t.Errorf("built with cgo:\n%s", out)
	}
}

// throwawayMod requires Caddy and us, and replaces us by this working copy.
func throwawayMod(t *testing.T, repo string) string {
	t.Helper()
	ours, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	caddy := regexp.MustCompile(`(?m)^\s*github\.com/caddyserver/caddy/v2 (v\S+)`).FindSubmatch(ours)
	goVersion := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(ours)
	if caddy == nil || goVersion == nil {
		t.Fatal("go.mod names no version of Caddy or of Go")
	}
	return fmt.Sprintf(`module caddy

go %s

require (
	github.com/caddyserver/caddy/v2 %s
	github.com/caddy-x402/caddy-x402 v0.0.0-00010101000000-000000000000
)

replace github.com/caddy-x402/caddy-x402 => %s
`, goVersion[1], caddy[1], repo)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run gives a command's standard output.
func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	// A home of its own: Caddy must not find or leave anything in the developer's.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}
