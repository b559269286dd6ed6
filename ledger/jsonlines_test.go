package ledger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func export(t *testing.T, b ledger.Books, o ledger.ExportOptions) (string, ledger.ExportSummary) {
	t.Helper()
	var to bytes.Buffer
	sum, err := ledger.Export(t.Context(), b, &to, o)
	if err != nil {
		t.Fatal(err)
	}
	return to.String(), sum
}

func verifyExport(t *testing.T, text string, o ledger.VerifyOptions) ledger.Report {
	t.Helper()
	r, err := ledger.VerifyExport(t.Context(), strings.NewReader(text), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is exported verifies as the store does; each line is an object with a type and what belongs to it.
func TestExport(t *testing.T) {
	m, _ := memory(t, 605)
	s := newSnapshot(t, m)
	var lines int64
	text, sum := export(t, m, ledger.ExportOptions{Progress: func(n int64) { lines = n }})
	of, in := verifyExport(t, text, ledger.VerifyOptions{Expect: s.anchors[3].Hash}), verify(t, m, ledger.VerifyOptions{})
	if of.Found != 0 || of.Payments != in.Payments || of.Entries != in.Entries || of.Anchors != in.Anchors ||
		of.Unanchored != in.Unanchored || of.LastAnchor != in.LastAnchor {
		t.Errorf("the export: %+v\nthe store: %+v", of, in)
	}
	want := ledger.ExportSummary{Payments: in.Payments, Entries: in.Entries, Anchors: in.Anchors, LastAnchor: uint64(in.Anchors)}
	if n := strings.Count(text, "\n"); sum != want || lines != int64(n) {
		t.Errorf("summary %+v, want %+v; %d lines told of %d", sum, want, lines, n)
	}
	counts := map[string]int64{}
	var first ledger.Payment
	for line := range strings.Lines(text) {
		var kind struct {
			Type  string `json:"type"`
			State string `json:"state"`
		}
		if err := json.Unmarshal([]byte(line), &kind); err != nil {
			t.Fatal(err)
		}
		counts[kind.Type]++
		if kind.Type == "payment" && counts["payment"] == 1 {
			if err := json.Unmarshal([]byte(line), &first); err != nil || kind.State != string(first.State()) {
				t.Errorf("state %q of %+v, %v", kind.State, first, err)
			}
		}
	}
	if first != s.records[0].Payment {
		t.Errorf("payment %+v, want %+v", first, s.records[0].Payment)
	}
	if counts["payment"] != 605 || counts["entry"] != in.Entries || counts["anchor"] != in.Anchors ||
		counts["mark"] != in.Entries-in.Unanchored || counts["ledger"] != 1 || counts["end"] != 1 || len(counts) != 6 {
		t.Errorf("lines %v", counts)
	}
	empty, _ := export(t, storetest.NewMemory((&clock{start}).Now, false), ledger.ExportOptions{})
	if r := verifyExport(t, empty, ledger.VerifyOptions{}); r.Found != 0 {
		t.Errorf("the export of an empty ledger: %+v", r)
	}
}

// An archive that grows file by file has every anchored entry once, and each file verifies alone.
func TestExportAfterAnchor(t *testing.T) {
	m, c := memory(t, 95)
	s := newSnapshot(t, m)
	last := s.anchors[len(s.anchors)-1]
	for _, after := range []uint64{1, 4, last.Sequence} {
		text, sum := export(t, m, ledger.ExportOptions{AfterAnchor: after})
		var want int64
		for _, e := range s.entries {
			if e.At.After(s.anchors[after-1].Until) && !e.At.After(last.Until) {
				want++
			}
		}
		r := verifyExport(t, text, ledger.VerifyOptions{Expect: s.anchors[after-1].Hash})
		if r.Found != 0 || r.Entries != want || r.Payments != 0 || sum.Entries != want || sum.LastAnchor != last.Sequence || r.LastAnchor != last.Hash {
			t.Errorf("after anchor %d: %+v, %+v; want %d entries", after, r, sum, want)
		}
		if after > 1 {
			r = verifyExport(t, text, ledger.VerifyOptions{Expect: s.anchors[0].Hash})
			if kinds(r) != "expected" {
				t.Errorf("an anchor from before: %+v", r)
			}
		}
	}
	for _, after := range []uint64{last.Sequence + 1, 1 << 40} {
		if _, err := ledger.Export(t.Context(), m, &bytes.Buffer{}, ledger.ExportOptions{AfterAnchor: after}); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("after anchor %d: %v, want ErrNotFound", after, err)
		}
	}
	// The next file begins where this one ends, also when the ledger went on.
	_, sum := export(t, m, ledger.ExportOptions{AfterAnchor: 3})
	fill(t, m, c, 1000, 8)
	anchor(t, m, c)
	text, _ := export(t, m, ledger.ExportOptions{AfterAnchor: sum.LastAnchor})
	if r := verifyExport(t, text, ledger.VerifyOptions{Expect: last.Hash}); r.Found != 0 || r.Anchors < 1 {
		t.Errorf("the next file: %+v", r)
	}
}

// A line that is missing, doubled, in another place or changed in any byte is found, in a whole ledger and in a part.
func TestVerifyExportFinds(t *testing.T) {
	m, c := memory(t, 28)
	anchor(t, m, c)
	whole, _ := export(t, m, ledger.ExportOptions{})
	part, _ := export(t, m, ledger.ExportOptions{AfterAnchor: 2})
	rapid.Check(t, func(t *rapid.T) {
		text := whole
		if rapid.Bool().Draw(t, "of a part") {
			text = part
		}
		lines := slices.Collect(strings.Lines(text))
		i := rapid.IntRange(0, len(lines)-1).Draw(t, "line")
		what := rapid.SampledFrom([]string{"removed", "doubled", "swapped", "cut off", "changed", "changed", "changed", "changed"}).Draw(t, "what")
		before := strings.Join(lines, "")
		switch what {
		case "removed":
			lines = slices.Delete(lines, i, i+1)
		case "doubled":
			lines = slices.Insert(lines, i, lines[i])
		case "swapped":
			j := rapid.IntRange(0, len(lines)-1).Draw(t, "other line")
			lines[i], lines[j] = lines[j], lines[i]
		case "cut off":
			lines = lines[:i]
		case "changed":
			b := []byte(lines[i])
			k := rapid.IntRange(0, len(b)-2).Draw(t, "byte") // not the line's end
			b[k] = otherByte(b[k])
			lines[i] = string(b)
		}
		after := strings.Join(lines, "")
		if after == before {
			t.Skip("it is what it was")
		}
		r, err := ledger.VerifyExport(t.Context(), strings.NewReader(after), ledger.VerifyOptions{})
		if err != nil || r.Found == 0 {
			t.Fatalf("line %d %s: %+v, %v\n%s", i+1, what, r, err, lines[min(i, len(lines)-1)])
		}
	})
}

// What looks harmless is found too: words for readers, names of fields, and payments that no anchor has fixed yet.
func TestVerifyExportFindsDetails(t *testing.T) {
	m, _ := memory(t, 25)
	young := offer(25).ID // there are anchors after the payments 9 and 19
	whole, sum := export(t, m, ledger.ExportOptions{})
	find := func(lines []string, part string, from int) int {
		t.Helper()
		i := slices.IndexFunc(lines[from:], func(l string) bool { return strings.Contains(l, part) })
		if i < 0 {
			t.Fatalf("no line has %s", part)
		}
		return from + i
	}
	for name, tt := range map[string]struct {
		edit func(lines []string) []string
		want string
	}{
		"a state": {func(lines []string) []string {
			i := find(lines, `"state":"SETTLING"`, 0)
			lines[i] = strings.Replace(lines[i], "SETTLING", "DELIVERED", 1)
			return lines
		}, "trail"},
		"a mark's payment": {func(lines []string) []string {
			i := len(lines) - 2
			lines[i] = strings.Replace(lines[i], `"payment":"pay_`, `"payment":"paz_`, 1)
			return lines
		}, "entries"},
		"a field more": {func(lines []string) []string {
			i := len(lines) - 1
			lines[i] = strings.Replace(lines[i], "}", `,"more":0}`, 1)
			return lines
		}, "format"},
		"an end twice": {func(lines []string) []string { return append(lines, lines[len(lines)-1]) }, "format"},
		"a payment twice that no anchor has fixed": {func(lines []string) []string {
			i := find(lines, `"id":"`+young, 0)
			j := i + 1
			for strings.HasPrefix(lines[j], `{"type":"entry"`) {
				j++
			}
			lines = slices.Insert(lines, i, slices.Clone(lines[i:j])...)
			end, more := fmt.Sprintf(`"entries":%d`, sum.Entries), fmt.Sprintf(`"entries":%d`, int(sum.Entries)+j-i-1)
			last := &lines[len(lines)-1]
			*last = strings.Replace(strings.Replace(*last, end, more, 1), `"payments":25`, `"payments":26`, 1)
			return lines
		}, "format"},
	} {
		text := strings.Join(tt.edit(slices.Collect(strings.Lines(whole))), "")
		if r := verifyExport(t, text, ledger.VerifyOptions{}); kinds(r) != tt.want {
			t.Errorf("%s: %+v, want problems of kind %q alone", name, r, tt.want)
		}
	}
}

// otherByte is another letter for a letter, not the same in capitals (which means the same in hex and in names of fields), and
// another digit for a digit.
func otherByte(b byte) byte {
	switch b {
	case 'z', 'Z':
		return b - 1
	case '9':
		return '8'
	}
	return b + 1
}

// Whatever a file holds, it is read to its end or refused; what is no export has problems.
func FuzzVerifyExport(f *testing.F) {
	m := storetest.NewMemory((&clock{start}).Now, false)
	if _, err := m.Claim(f.Context(), offer(1), ledger.Change{}); err != nil {
		f.Fatal(err)
	}
	var whole bytes.Buffer
	if _, err := ledger.Export(f.Context(), m, &whole, ledger.ExportOptions{}); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.String())
	f.Add("")
	f.Add("{\"type\":\"ledger\",\"format\":1}\n{\"type\":\"entry\"}\n{\"type\":\"end\",\"entries\":1}\n")
	f.Add("{\"type\":\"ledger\",\"format\":1,\"after\":{}}\n{\"type\":\"anchor\"}\n{\"type\":\"mark\"}\nnull\n[]\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ledger.VerifyExport(t.Context(), strings.NewReader(text), ledger.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(r.Problems)) != min(r.Found, ledger.MaxProblems) {
			t.Errorf("%d problems found, %d listed", r.Found, len(r.Problems))
		}
		if r.Found == 0 && (!strings.Contains(text, "ledger") || !strings.Contains(text, "end")) {
			t.Errorf("nothing is wrong with %q", text)
		}
	})
}
