package caddymodule

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func writeFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// The key comes from the environment, a file or the standard input.
func TestPayKey(t *testing.T) {
	s := newShop(t, "base-sepolia")
	t.Setenv("OTHER_KEY", " "+payerKey+"\n")
	for name, tc := range map[string]struct {
		args  []string
		stdin string
	}{
		"variable": {[]string{"--key-env", "OTHER_KEY"}, ""},
		"file":     {[]string{"--key-file", writeFile(t, "0x"+payerKey+"\n", 0o600)}, ""},
		"stdin":    {[]string{"--key-file", "-"}, payerKey + "\n"},
	} {
		before := len(s.got())
		r := payRun{t: t, noKey: true, stdin: tc.stdin}.run(append(tc.args, s.URL)...)
		r.clean(t, s)
		if r.code != exitOK || len(s.got()) != before+1 || r.err != "" {
			t.Errorf("%s: code %d, %s", name, r.code, r.err)
		}
	}
	r := payRun{t: t}.run("--key-file", writeFile(t, payerKey, 0o644), s.URL)
	if r.code != exitOK || !strings.Contains(r.err, "chmod 600") {
		t.Errorf("a file that others can read: code %d, %q", r.code, r.err)
	}
}

// Mistakes end in code 2 before anything is sent, and nothing of a misplaced key is repeated.
func TestPayUsage(t *testing.T) {
	s := newShop(t, "base-sepolia")
	bad := writeFile(t, payerKey[:40]+"zz", 0o600)
	zero := writeFile(t, strings.Repeat("0", 64), 0o600)
	saved := writeFile(t, `{"version":1,"method":"GET","url":"`+s.URL+`","paymentHeader":"Authorization","paymentValue":"x"}`, 0o600)
	for _, tc := range []struct {
		says string
		args []string
	}{
		{"one URL", nil},
		{"one URL", []string{s.URL, payerKey}},
		{"absolute", []string{"api.example.com"}},
		{"absolute", []string{payerKey}},
		{"absolute", []string{"ftp://api.example.com"}},
		{"unknown flag", []string{"--key=" + payerKey, s.URL}},
		{"unknown flag", []string{"--private-key", payerKey, s.URL}},
		{"command line", []string{"--key-file", "0x" + payerKey, s.URL}},
		{"command line", []string{"--key-env", payerKey, s.URL}},
		{"choose one", []string{"--key-file", bad, "--key-env", "X", s.URL}},
		{"holds no private key", []string{"--key-env", "NO_SUCH_VARIABLE", s.URL}},
		{"64 hex digits", []string{"--key-file", bad, s.URL}},
		{"no private key", []string{"--key-file", zero, s.URL}},
		{"reading the key", []string{"--key-file", bad + ".none", s.URL}},
		{"both key and body", []string{"--key-file", "-", "-d", "@-", s.URL}},
		{"--max-amount", []string{"--max-amount", "1e3", s.URL}},
		{"--max-amount", []string{"--max-amount", "-1", s.URL}},
		{"--max-amount", []string{"--max-amount", "0.0000001", s.URL}},
		{"base-sepolia", []string{"--network", "bass", s.URL}},
		{"NETWORK/ADDRESS/DECIMALS", []string{"--asset", "base", s.URL}},
		{"NETWORK/ADDRESS/DECIMALS", []string{"--asset", "base/0x12/6", s.URL}},
		{"NETWORK/ADDRESS/DECIMALS", []string{"--asset", "base/" + shopPayTo + "/256", s.URL}},
		{"Name: value", []string{"-H", "nonsense", s.URL}},
		{"can't be sent", []string{"-X", "NO SPACE", s.URL}},
		{"reading --data", []string{"-d", "@" + bad + ".none", s.URL}},
		{"opening --output", []string{"-o", bad + ".none/x", s.URL}},
		{"choose one", []string{"--json", "-o", "-", s.URL}},
		{"--timeout", []string{"--timeout", "0s", s.URL}},
		{"--cacert", []string{"--cacert", bad, s.URL}},
		{"leave out the URL", []string{"--resume", saved, s.URL}},
		{"leave out", []string{"--resume", saved, "-X", "PUT"}},
		{"no file of --save-payment", []string{"--resume", bad}},
		{"reading the payment", []string{"--resume", bad + ".none"}},
		{"no payment header", []string{"--resume", saved}},
		{"carries a payment already", []string{"-H", "Payment-Signature: x", s.URL}},
	} {
		r := payRun{t: t}.run(tc.args...)
		r.clean(t, s)
		if r.code != exitUsage || !strings.Contains(r.err, tc.says) || strings.Contains(r.err, payerKey[:40]) {
			t.Errorf("%q: code %d, %q", tc.args, r.code, r.err)
		}
	}
	if s.last != nil {
		t.Errorf("a request was sent: %s %s", s.last.Method, s.last.URL)
	}
	if _, err := os.Stat(saved); err != nil {
		t.Errorf("a file that could not be used is gone: %v", err)
	}
}

// Method, headers and body are what curl would make of them.
func TestPayRequest(t *testing.T) {
	s := newShop(t, "base-sepolia")
	file := writeFile(t, "from\na file", 0o600)
	for _, tc := range []struct {
		args                []string
		stdin               string
		method, body, ctype string
	}{
		{nil, "", "GET", "", ""},
		{[]string{"-X", "DELETE"}, "", "DELETE", "", ""},
		{[]string{"-d", "a=1", "-d", "b=2"}, "", "POST", "a=1&b=2", "application/x-www-form-urlencoded"},
		{[]string{"-d", "@" + file, "-X", "PATCH"}, "", "PATCH", "from\na file", "application/x-www-form-urlencoded"},
		{[]string{"--data", "@-", "-H", "content-type: application/json"}, `{"a":1}`, "POST", `{"a":1}`, "application/json"},
		{[]string{"-d", ""}, "", "POST", "", "application/x-www-form-urlencoded"},
	} {
		r := payRun{t: t, stdin: tc.stdin}.run(append(tc.args, "-H", "X-A: 1", "-H", "X-A: 2", "-H", "Host: other.example", "-H", "Accept: text/csv", s.URL)...)
		if r.code != exitOK {
			t.Fatalf("%q: code %d, %s", tc.args, r.code, r.err)
		}
		h := s.last.Header
		if s.last.Method != tc.method || s.body != tc.body || h.Get("Content-Type") != tc.ctype {
			t.Errorf("%q: %s %q %q", tc.args, s.last.Method, s.body, h.Get("Content-Type"))
		}
		if strings.Join(h["X-A"], ",") != "1,2" || strings.Join(h["Accept"], ",") != "text/csv" || s.last.Host != "other.example" || h.Get("User-Agent") != "caddy-x402" {
			t.Errorf("%q: headers %v, host %s", tc.args, h, s.last.Host)
		}
	}
}

// The body goes where it is wanted, and headers are shown without what others could use.
func TestPayOutput(t *testing.T) {
	s := newShop(t, "base-sepolia")
	s.serve = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X_Access_Token", "token-of-a-plan")
		w.Header().Set("X-Seen", "yes")
		_, _ = io.WriteString(w, "sunny")
	}
	file := writeFile(t, "older and longer", 0o600)
	r := payRun{t: t}.run("-o", file, s.URL)
	content, _ := os.ReadFile(file)
	if got := r.object(t); r.code != exitOK || string(content) != "sunny" || got["body"] != nil || got["outcome"] != "paid" {
		t.Errorf("to a file: code %d, %q, %s", r.code, content, r.out)
	}
	if r := (payRun{t: t}).run("-o", "-", s.URL); r.code != exitOK || r.out != "sunny" {
		t.Errorf("to the standard output: %q", r.out)
	}
	r = payRun{t: t, terminal: true}.run("-i", s.URL)
	r.clean(t, s)
	if !strings.HasPrefix(r.out, "HTTP/1.1 200 OK\n") || !strings.HasSuffix(r.out, "\n\nsunny") || !strings.Contains(r.out, "X-Seen: yes\n") ||
		!strings.Contains(r.out, "Payment-Response: REDACTED\n") || strings.Contains(r.out, "token-of-a-plan") {
		t.Errorf("with headers: %q", r.out)
	}
	r = payRun{t: t}.run("--json", "-i", s.URL)
	if h, ok := r.object(t)["headers"].(map[string]any); !ok || h["X-Seen"] == nil || strings.Contains(r.out, "token-of-a-plan") {
		t.Errorf("with headers: %s", r.out)
	}
	if before := string(content); before == "" {
		t.Error("nothing was kept")
	}
	if r := (payRun{t: t}).run("-o", file, "--max-amount", "0.001", s.URL); r.code != exitDeclined {
		t.Errorf("declined: code %d", r.code)
	}
	if content, _ := os.ReadFile(file); string(content) != "sunny" {
		t.Errorf("what was there was lost to a request that was not paid: %q", content)
	}
}

// A body that is no text, or long, arrives whole; one that is cut off is said to be, and counts as a bad answer.
func TestPayBodies(t *testing.T) {
	s := newShop(t, "base-sepolia")
	for name, body := range map[string][]byte{
		"text": []byte("süß \" \\ \n <&>"), "none": {}, "binary": {0xff, 0, 1}, "1 MiB": bytes.Repeat([]byte("a"), maxTextBody), "longer": bytes.Repeat([]byte("abc"), maxTextBody),
	} {
		s.serve = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
		r := payRun{t: t}.run(s.URL)
		got := r.object(t)
		text, isText := got["body"].(string)
		if encoded, ok := got["bodyBase64"].(string); ok {
			raw, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			text = string(raw)
		}
		if r.code != exitOK || text != string(body) || isText != (name == "text" || name == "none" || name == "1 MiB") || got["bodyError"] != nil {
			t.Errorf("%s: code %d, text %v, %d bytes", name, r.code, isText, len(text))
		}
	}
	for _, size := range []int{3, 2 * maxTextBody} {
		s.serve = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size+10))
			_, _ = w.Write(bytes.Repeat([]byte("a"), size))
		}
		r := payRun{t: t}.run(s.URL)
		if got := r.object(t); r.code != exitBadAnswer || got["bodyError"] == nil || got["outcome"] != "paid" {
			t.Errorf("cut after %d bytes: code %d, %.300s", size, r.code, r.out)
		}
	}
}

// The token of a plan is kept in a private file, and never printed.
func TestPayToken(t *testing.T) {
	s := newShop(t, "base-sepolia")
	s.offers = append(s.offers, s.price(90_000, "day"))
	s.serve = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Access-Token", "token-of-a-plan")
		_, _ = io.WriteString(w, "welcome")
	}
	chosen := writeFile(t, "an older token", 0o644)
	for _, args := range [][]string{{}, {"--token-file", chosen}} {
		r := payRun{t: t}.run(append(args, "--plan", "day", s.URL)...)
		r.clean(t, s)
		got := r.object(t)
		path, _ := got["accessTokenFile"].(string)
		content, err := os.ReadFile(path)
		if err != nil || string(content) != "token-of-a-plan" || got["plan"] != "day" || got["amountDecimal"] != "0.09" || strings.Contains(r.out+r.err, "token-of-a-plan") {
			t.Fatalf("%q, %v, %s", content, err, r.out)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || len(args) > 0 && path != chosen {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// The tree is registered with Caddy, and its help says all that a script must know.
func TestPayHelp(t *testing.T) {
	registered, ok := caddycmd.Commands()["x402"]
	if !ok || registered.CobraFunc == nil {
		t.Fatal("caddy x402 is not registered")
	}
	root := &cobra.Command{Use: "x402"}
	registered.CobraFunc(root)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs([]string{"pay", "--help"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	for code := range 9 {
		if code == 1 {
			continue
		}
		if !strings.Contains(out.String(), "\n  "+strconv.Itoa(code)+"  ") {
			t.Errorf("the help lacks exit code %d", code)
		}
	}
	// Every member of the JSON object is documented.
	for member := range jsonMembers(payResult{}) {
		if !strings.Contains(out.String(), member) {
			t.Errorf("the help lacks %s", member)
		}
	}
}

// jsonMembers are the names that a struct's fields have in JSON.
func jsonMembers(v any) map[string]bool {
	names := make(map[string]bool)
	for f := range reflect.TypeOf(v).Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}
