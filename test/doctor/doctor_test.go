package doctor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

func TestMain(m *testing.M) {
	rig.Main()
	os.Exit(m.Run()) // what Caddy leaves behind of ours is looked for by the rig
}

// patient is what the doctor is shown.
type patient struct {
	text    string   // of the Caddyfile
	args    []string // for each look
	secrets []string // none of them may be shown
	named   map[string]bool
}

func (p *patient) setenv(t *testing.T, name, value string) {
	t.Helper()
	t.Setenv(name, value)
	p.secrets = append(p.secrets, value)
}

// write puts a text into a file of its own.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

type report struct {
	OK    bool `json:"ok"`
	Items []struct {
		ID, Status, Found, Why, Do string
	} `json:"items"`
}

// look runs the doctor, as its users do, and gives the items that are not as they should be. What it prints is JSON, and nothing else.
func (p *patient) look(t *testing.T, text string, args ...string) ([]string, report) {
	t.Helper()
	args = slices.Concat([]string{"x402", "doctor", "--config", write(t, "Caddyfile", text), "--json"}, p.args, args)
	ran := rig.Command(t, t.TempDir(), args...)
	for _, secret := range p.secrets {
		if strings.Contains(ran.Out+ran.Err, secret) {
			t.Error("it shows a secret")
		}
	}
	var r report
	if err := json.Unmarshal([]byte(ran.Out), &r); err != nil || len(r.Items) == 0 {
		t.Fatalf("%d %v\n%s%s", ran.Code, err, ran.Out, ran.Err)
	}
	fine, broken := true, []string{}
	for _, i := range r.Items {
		if i.Status == "fail" || i.Status == "warn" {
			broken = append(broken, i.ID)
			t.Logf("%s %s: %s", i.Status, i.ID, i.Found)
			if i.Why == "" || i.Do == "" {
				t.Errorf("%s does not say what to do", i.ID)
			}
		}
		fine = fine && i.Status != "fail"
	}
	if want := map[bool]int{true: 0, false: 5}[fine]; ran.Code != want || r.OK != fine {
		t.Errorf("code %d, ok %t, broken: %v", ran.Code, r.OK, broken)
	}
	return broken, r
}

// sees expects the doctor to name want, separated by spaces, and nothing else.
func (p *patient) sees(t *testing.T, text, want string, args ...string) {
	t.Helper()
	ids := strings.Fields(want)
	if broken, _ := p.look(t, text, args...); !slices.Equal(broken, ids) {
		t.Errorf("broken: %v, and %v should be", broken, ids)
	}
	for _, id := range ids {
		p.named[id] = true
	}
}

// all expects that every item of some depths was named.
func (p *patient) all(t *testing.T, depths ...doctor.Depth) {
	t.Helper()
	for _, i := range doctor.Items() {
		if slices.Contains(depths, i.Depth) && !p.named[i.ID] {
			t.Errorf("nothing has broken %s", i.ID)
		}
	}
}
