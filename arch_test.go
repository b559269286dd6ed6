package caddyx402_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddy-x402/caddy-x402"

// rooms says for each top-level folder which others its packages may import; its own it always may. The root package has
// the name ".". A folder that is missing here fails the test: a new room needs a place in the house.
var rooms = map[string][]string{
	".":           {"caddymodule"},
	"cmd":         {".", "caddymodule", "paywall", "management", "client", "settlement", "ledger", "token", "x402", "devnet", "internal"},
	"caddymodule": {"paywall", "management", "client", "settlement", "ledger", "token", "x402", "internal"},
	"paywall":     {"settlement", "ledger", "token", "x402", "internal"},
	"management":  {"settlement", "ledger", "token", "x402", "internal"},
	"client":      {"x402", "internal"},
	"settlement":  {"x402", "internal"},
	"ledger":      {"x402", "internal"},
	"token":       {"x402", "internal"},
	"devnet":      {"x402", "internal"},
	"internal":    {},
	"x402":        {},
	"test":        {".", "cmd", "caddymodule", "paywall", "management", "client", "settlement", "ledger", "token", "devnet", "x402", "internal"},
}

// outside says which rooms alone may import packages that begin with the prefix.
var outside = []struct {
	prefix string
	rooms  []string
}{
	{"github.com/caddyserver/", []string{".", "caddymodule", "cmd", "test"}},
	{"go.uber.org/zap", []string{"caddymodule", "test"}},
	{"testing", []string{"test"}}, // and conformance suites: see violations
}

// impure is what the protocol must not touch: it does no I/O, and whoever calls it says what time it is.
var impure = []string{"net", "net/http", "os", "os/exec", "database/sql", "log", "log/slog", "io/ioutil", "syscall"}

// goPackage is what go list says of a package. Tests' imports are left out: they may go anywhere.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// room is the top-level folder of one of our packages, or "" for somebody else's.
func room(path string) string {
	rest, ours := strings.CutPrefix(path, module)
	switch {
	case !ours || rest != "" && rest[0] != '/':
		return ""
	case rest == "":
		return "."
	}
	name, _, _ := strings.Cut(rest[1:], "/")
	return name
}

// suite reports whether a package exists for tests: a conformance suite such as ledger/storetest, or the local chain.
func suite(path string) bool {
	return strings.HasSuffix(path, "test") || room(path) == "devnet" || room(path) == "test"
}

// violations are the imports that break the house's rules.
func violations(packages []goPackage) []string {
	var found []string
	for _, p := range packages {
		from := room(p.ImportPath)
		if from == "" {
			continue
		}
		allowed, known := rooms[from]
		if !known {
			found = append(found, p.ImportPath+" is in no known room")
			continue
		}
		for _, to := range p.Imports {
			if r := room(to); r != "" && r != from && !slices.Contains(allowed, r) {
				found = append(found, fmt.Sprintf("%s imports %s", p.ImportPath, to))
			}
			for _, o := range outside {
				if strings.HasPrefix(to, o.prefix) && !slices.Contains(o.rooms, from) && (o.prefix != "testing" || !suite(p.ImportPath)) {
					found = append(found, fmt.Sprintf("%s imports %s", p.ImportPath, to))
				}
			}
			if from == "x402" && slices.Contains(impure, to) {
				found = append(found, fmt.Sprintf("%s imports %s", p.ImportPath, to))
			}
		}
	}
	return append(found, shippedSuites(packages)...)
}

// shippedSuites finds what exists for tests and would yet end in a user's Caddy.
func shippedSuites(packages []goPackage) []string {
	byPath := map[string]goPackage{}
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	var found []string
	seen := map[string]bool{}
	var walk func(path, by string)
	walk = func(path, by string) {
		if room(path) == "" || seen[path] {
			return
		}
		seen[path] = true
		if suite(path) {
			found = append(found, fmt.Sprintf("%s ships with %s", path, by))
			return
		}
		for _, to := range byPath[path].Imports {
			walk(to, path)
		}
	}
	for _, shipped := range []string{module, module + "/cmd/caddy", module + "/caddymodule", module + "/client"} {
		walk(shipped, shipped)
	}
	return found
}

func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Standard"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsRunOneWay(t *testing.T) {
	packages := goList(t, "./...")
	if len(packages) < 10 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
}

// What has no test of its own rules can be broken without anybody seeing it.
func TestViolationsAreSeen(t *testing.T) {
	p := func(path string, imports ...string) goPackage {
		for i, to := range imports {
			if strings.HasPrefix(to, "/") {
				imports[i] = module + to
			}
		}
		return goPackage{ImportPath: module + path, Imports: imports}
	}
	for name, c := range map[string]struct {
		packages []goPackage
		want     int
	}{
		"the house as it is meant": {[]goPackage{
			p("", "/caddymodule"),
			p("/caddymodule", "/paywall", "/token", "github.com/caddyserver/caddy/v2", "go.uber.org/zap"),
			p("/paywall", "/ledger", "/settlement", "/token", "/x402", "net/http"),
			p("/ledger/sqlite", "/ledger", "/x402"),
			p("/ledger/storetest", "/ledger", "testing"),
			p("/devnet", "testing"),
			p("/cmd/demo", "/devnet", "/client"),
			p("/x402/money", "/x402", "time"),
		}, 0},
		"upwards":                {[]goPackage{p("/ledger", "/paywall")}, 1},
		"sideways":               {[]goPackage{p("/ledger", "/token")}, 1},
		"sideways above":         {[]goPackage{p("/paywall", "/management")}, 1},
		"the client looks in":    {[]goPackage{p("/client", "/ledger")}, 1},
		"the protocol looks out": {[]goPackage{p("/x402", "/token", "net/http", "os")}, 3},
		"Caddy below":            {[]goPackage{p("/paywall", "github.com/caddyserver/caddy/v2")}, 1},
		"certmagic below":        {[]goPackage{p("/token", "github.com/caddyserver/certmagic")}, 1},
		"zap below":              {[]goPackage{p("/settlement/wallet", "go.uber.org/zap")}, 1},
		"testing in a product":   {[]goPackage{p("/ledger", "testing")}, 1},
		"logic at the root":      {[]goPackage{p("", "/paywall")}, 1},
		"a new room":             {[]goPackage{p("/helpers")}, 1},
		"the chain ships":        {[]goPackage{p("/caddymodule", "/devnet"), p("/devnet")}, 2},
		"a suite ships": {[]goPackage{
			p("/caddymodule", "/paywall"), p("/paywall", "/ledger/storetest"), p("/ledger/storetest"),
		}, 1},
		"somebody of that name": {[]goPackage{{ImportPath: module + "-fork/x402", Imports: []string{"os"}}}, 0},
	} {
		if got := violations(c.packages); len(got) != c.want {
			t.Errorf("%s: %d violations, want %d: %q", name, len(got), c.want, got)
		}
	}
}

// Users inherit our requirements, so developers' tools have a go.mod of their own.
func TestToolsAreNotInherited(t *testing.T) {
	ours, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile("tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"github.com/golangci/golangci-lint", "mvdan.cc/gofumpt", "golang.org/x/vuln"} {
		if bytes.Contains(ours, []byte(tool)) {
			t.Errorf("go.mod requires %s", tool)
		}
		if !bytes.Contains(theirs, []byte(tool)) {
			t.Errorf("tools/go.mod doesn't pin %s", tool)
		}
	}
}
