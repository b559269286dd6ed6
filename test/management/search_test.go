package management

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// search looks for secrets.
type search struct {
	needles map[string]string // parts of them in every form that they may be written in, with what they are of
	texts   map[string]string // where is looked, with what stands there
}

// secret adds one: what begins all secrets of its kind is left out.
func (s *search) secret(what, text string, begin int) {
	if len(text) < begin+24 {
		panic(what + " is none")
	}
	text = text[begin:]
	for at := 0; at+16 <= len(text); at += 16 { // in pieces, as a database's pages may cut a text anywhere
		s.piece(what, text[at:at+16])
	}
	s.piece(what, text[len(text)-16:])
}

// bytes adds one that is not text.
func (s *search) bytes(what string, b []byte) {
	s.secret(what, hex.EncodeToString(b), 0)
	s.secret(what, base64.RawStdEncoding.EncodeToString(b), 0)
	s.secret(what, base64.RawURLEncoding.EncodeToString(b), 0)
	s.piece(what, string(b))
}

func (s *search) piece(what, text string) {
	s.needles[text] = what
	for before := range 3 { // in base64 it depends on what is before it
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			encoded := e.EncodeToString([]byte(strings.Repeat("x", before) + text))
			s.needles[encoded[4:len(encoded)-4]] = what
		}
	}
}

func (s *search) in(text string) string {
	for needle, what := range s.needles {
		if strings.Contains(text, needle) {
			return what
		}
	}
	return ""
}

// files adds those of a folder, but some that have secrets, and that nobody but their owner may read.
func (s *search) files(t testing.TB, dir string, keepers ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if slices.Contains(keepers, path) {
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s may be read by others: %s", path, info.Mode())
			}
			return nil
		}
		text, err := os.ReadFile(path)
		s.texts[path] = string(text)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func sorted(m map[string]string) (values []string) {
	for _, v := range m {
		values = append(values, v)
	}
	slices.Sort(values)
	return slices.Compact(values)
}
