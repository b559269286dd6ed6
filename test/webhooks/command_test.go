//go:build interop

package webhooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// command is "caddy x402 webhooks …" in a process of its own.
func command(t *testing.T, secret string, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"x402", "webhooks"}, args...)...)
	cmd.Env = append(os.Environ(), envCommand+"=1", "X402_WEBHOOK_SECRET="+secret)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	return cmd, &out, &errOut
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
	addr := rig.FreeAddr(t)
	listen, out, errOut := command(t, secret, "listen", "--listen", addr, "--count", "2")
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- listen.Wait() }()
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
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("%v\n%s", err, errOut)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	var lines []shown
	for line := range strings.Lines(out.String()) {
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
	path := filepath.Join(t.TempDir(), "shown.json")
	if err := os.WriteFile(path, lines[1].Body, 0o600); err != nil {
		t.Fatal(err)
	}
	again, _, why := command(t, secret, "verify", path, "--id", lines[1].ID, "--timestamp", lines[1].Timestamp, "--signature", lines[1].Signature)
	if err := again.Run(); err != nil {
		t.Errorf("what was shown does not verify: %v %s", err, why)
	}
	if strings.Contains(out.String()+errOut.String(), secret) {
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
		cmd, out, errOut := command(t, c.secret, args...)
		code := 0
		if err := cmd.Run(); err != nil {
			e, ok := errors.AsType[*exec.ExitError](err)
			if !ok {
				t.Fatal(err)
			}
			code = e.ExitCode()
		}
		var s shown
		_ = json.Unmarshal(out.Bytes(), &s)
		if code != c.code || s.Code != string(c.want) || s.Verified != (code == 0) {
			t.Errorf("%s: %d\n%s%s", name, code, out, errOut)
		}
	}
}

const exampleSignature = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

// answers waits until somebody listens.
func answers(t *testing.T, addr string) {
	t.Helper()
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("nobody listens at", addr)
}
