package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

var update = flag.Bool("update", false, "write what adapting gives into the fixtures that hold JSON")

const (
	fixtures  = "testdata/adapt/*.caddyfiletest"
	separator = "----------\n"
)

// A fixture is a Caddyfile, ten hyphens, and what it is adapted to: JSON, or a part of the error, with file and line.
func TestAdapt(t *testing.T) {
	paths, err := filepath.Glob(fixtures)
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d fixtures, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), func(t *testing.T) {
			text, want, ok := strings.Cut(readText(t, path), separator)
			if !ok {
				t.Fatal("no separator")
			}
			if got := string(caddyfile.Format([]byte(text))); got != text {
				t.Errorf("caddy fmt would write:\n%s", got)
			}
			got, err := adapt(text)
			if want = strings.TrimSpace(want); strings.HasPrefix(want, "{") {
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, path, text, got, want)
				return
			}
			if err == nil {
				t.Fatalf("no error, but\n%s", got)
			}
			if want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("error:\n%v\nwant:\n%s", err, want)
			}
			if !strings.Contains(want, "Caddyfile:") {
				t.Errorf("the fixture does not say where the error is: %s", want)
			}
		})
	}
}

func sameJSON(t *testing.T, path, text string, got []byte, want string) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "\t"); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, []byte(text+separator+pretty.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	var a, b any
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal("the fixture:", err)
	}
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("adapted to:\n%s", pretty.String())
	}
}
