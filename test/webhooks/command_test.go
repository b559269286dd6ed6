//go:build interop

package webhooks

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// command runs "caddy x402 webhooks …"; it knows the secret by its environment.
func command(t *testing.T, secret string, args ...string) rig.Ran {
	t.Helper()
	t.Setenv("X402_WEBHOOK_SECRET", secret)
	return rig.Command(t, t.TempDir(), append([]string{"x402", "webhooks"}, args...)...)
}

// shown is what the commands print.
type shown struct {
	Verified  bool            `json:"verified"`
	Code      string          `json:"code"`
	ID        string          `json:"id"`
	Timestamp string          `json:"timestamp"`
	Signature string          `json:"signature"`
	Body      json.RawMessage `json:"body"`
}

// Who writes a receiver sees what comes, and can verify it.
func TestListenAndVerify(t *testing.T) {
	secret := webhooks.NewSecret()
	t.Setenv("T_SECRET", secret)
	t.Setenv("X402_WEBHOOK_SECRET", secret)
	addr, dir := rig.FreeAddr(t), t.TempDir()
	ended := make(chan rig.Ran, 1)
	go func() { ended <- rig.Command(t, dir, "x402", "webhooks", "listen", "--listen", addr, "--count", "2") }()
	answers(t, addr)
	// What is not signed is shown, answered 401 and not counted.
	res, err := http.Post("http://"+addr, "application/json", strings.NewReader("{}"))
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Fatal(res, err)
	}
	_ = res.Body.Close()
	g := rig.New(t, rig.Options{Site: site, App: fmt.Sprintf("webhook http://%s/ {\n secret {env.T_SECRET}\n }\n webhooks {\n allow_private\n }\n", addr)})
	if a, _ := rig.NewBuyer(t, 2).Buy(g.URL("/x")); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var listened rig.Ran
	select {
	case listened = <-ended:
	case <-time.After(rig.Patience):
		t.Fatal("it does not end")
	}
	if listened.Code != 0 {
		t.Fatalf("%d\n%s", listened.Code, listened.Err)
	}
	var lines []shown
	for line := range strings.Lines(listened.Out) {
		var s shown
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		lines = append(lines, s)
	}
	if len(lines) != 3 || lines[0].Verified || lines[0].Code != string(webhooks.SignatureMissing) || !lines[1].Verified || !lines[2].Verified {
		t.Fatalf("%+v", lines)
	}
	// What is shown is all that it takes to verify it again.
	path := filepath.Join(dir, "shown.json")
	if err := os.WriteFile(path, lines[1].Body, 0o600); err != nil {
		t.Fatal(err)
	}
	if again := command(t, secret, "verify", path, "--id", lines[1].ID, "--timestamp", lines[1].Timestamp, "--signature", lines[1].Signature); again.Code != 0 {
		t.Errorf("what was shown does not verify: %d %s", again.Code, again.Err)
	}
	if strings.Contains(listened.Out+listened.Err, secret) {
		t.Error("a secret that was given is shown")
	}
	verifyByCommand(t, secret)
}

func verifyByCommand(t *testing.T, secret string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(path, []byte(`{"test": 2432232314}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		secret string
		args   []string
		code   int
		want   webhooks.VerifyCode
	}{
		// Signed with the secret of the specification's example.
		"good":           {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", []string{"--at", "2021-02-25T15:02:10Z", "--signature", "v1,{good}"}, 0, ""},
		"too old":        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", []string{"--signature", "v1,{good}"}, 5, webhooks.TimestampOutsideWindow},
		"another secret": {secret, []string{"--at", "2021-02-25T15:02:10Z", "--signature", "v1,{good}"}, 5, webhooks.SignatureMismatch},
		"no secret":      {"", []string{"--signature", "v1,{good}"}, 5, webhooks.SecretMissing},
		"a weak secret":  {"whsec_AAAA", []string{"--signature", "v1,{good}"}, 2, ""},
		"no time":        {secret, []string{"--at", "yesterday"}, 2, ""},
	} {
		args := []string{"verify", path, "--id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "--timestamp", "1614265330"}
		for _, a := range c.args {
			args = append(args, strings.ReplaceAll(a, "{good}", exampleSignature))
		}
		ran := command(t, c.secret, args...)
		var s shown
		_ = json.Unmarshal([]byte(ran.Out), &s)
		if ran.Code != c.code || s.Code != string(c.want) || s.Verified != (ran.Code == 0) {
			t.Errorf("%s: %d\n%s%s", name, ran.Code, ran.Out, ran.Err)
		}
	}
}

const exampleSignature = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

// answers waits until somebody listens.
func answers(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatal("nobody listens at", addr)
}
