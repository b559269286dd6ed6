package key0

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sceneFile is one of Key0's files in the name of a scene, with the number of its tests.
var sceneFile = regexp.MustCompile(`([a-z0-9-]+) (\d+)`)

// All of Key0's end-to-end tests have a scene: 60 in 26 files.
func TestAllOfKey0(t *testing.T) {
	files, sum := map[string]int{}, 0
	for _, scene := range scenes {
		if strings.HasPrefix(scene.file, "ours: ") {
			continue
		}
		for _, m := range sceneFile.FindAllStringSubmatch(scene.file, -1) {
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			files[m[1]] += n
			sum += n
		}
	}
	if len(files) != 26 || sum != 60 {
		t.Errorf("%d tests in %d files: %v", sum, len(files), files)
	}
}

var (
	quoted   = regexp.MustCompile(`"([^"]+)"`)
	remark   = regexp.MustCompile(`\([^)]*\)`)
	testName = regexp.MustCompile(`^Test[A-Z0-9]\w*$`)
)

// Each of Key0's faults names tests that there are.
func TestFaultsAreTested(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	next := 1
	for line := range strings.Lines(string(doc)) {
		row, ok := strings.CutPrefix(line, "//\tW")
		if !ok {
			continue
		}
		if number, _, _ := strings.Cut(row, " "); number != strconv.Itoa(next) {
			t.Errorf("W%s stands where W%d should", number, next)
		}
		next++
		const column = len("10 wrong EIP-712 name on the mainnet         ")
		tests := strings.TrimSpace(row[column:])
		if strings.HasPrefix(tests, "no test: ") {
			continue
		}
		if namedTests(t, row, remark.ReplaceAllString(tests, "")) == 0 {
			t.Errorf("nothing is named by W%s", row)
		}
	}
	if next != 40 {
		t.Errorf("%d faults", next-1)
	}
}

// namedTests fails unless each test that is named exists, and gives their number.
func namedTests(t *testing.T, row, tests string) (n int) {
	t.Helper()
	for _, m := range quoted.FindAllStringSubmatch(tests, -1) {
		n++
		if !slices.ContainsFunc(scenes, func(s scene) bool {
			return s.file == m[1] || slices.ContainsFunc(sceneFile.FindAllStringSubmatch(s.file, -1), func(f []string) bool { return f[1] == m[1] })
		}) {
			t.Errorf("there is no scene %q, of W%s", m[1], row)
		}
	}
	for part := range strings.SplitSeq(quoted.ReplaceAllString(tests, ""), ";") {
		var folders []string
		for word := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == ' ' || r == ',' }) {
			if !testName.MatchString(word) {
				folders = append(folders, word)
				continue
			}
			n++
			if len(folders) == 0 {
				folders = []string{"test/key0"}
			}
			for _, folder := range folders {
				if !hasTest(t, folder, word) {
					t.Errorf("there is no %s in %s, of W%s", word, folder, row)
				}
			}
		}
	}
	return n
}

func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("%s has no tests: %v", folder, err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "\nfunc "+name+"(")
	})
}
