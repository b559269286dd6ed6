package bed

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// Facilitator starts the script facilitator.mjs of the folder dir, which settles on the chain c with the key of devnet's i-th
// developer, and gives its address; it ends with the test.
func Facilitator(t testing.TB, dir string, c Chain, developer int) string {
	t.Helper()
	return Serve(t, dir, "facilitator.mjs", map[string]string{
		"rpc": c.URL(), "key": hexutil.Encode(crypto.FromECDSA(devnet.Developer(developer).Key)),
	})
}

// Serve starts a script of the folder dir that is a server: it gets order as a line of JSON, and prints its address, which is
// given; it ends with the test.
func Serve(t testing.TB, dir, script string, order any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), runTimeout)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", script)
	cmd.Dir, cmd.Stderr, cmd.WaitDelay = dir, &stderr, 5*time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal("starting node:", err)
	}
	t.Cleanup(func() {
		_ = in.Close() // that ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("node %s: %v\n%s", script, err, &stderr)
		}
		cancel()
	})
	line, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(append(line, '\n')); err != nil {
		t.Fatalf("telling %s what to do: %v", script, err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("node %s does not start: %v\n%s", script, err, &stderr)
	}
	return strings.TrimSpace(address)
}
