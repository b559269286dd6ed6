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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), runTimeout)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", "facilitator.mjs")
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
			t.Errorf("node facilitator.mjs: %v\n%s", err, &stderr)
		}
		cancel()
	})
	order, err := json.Marshal(map[string]string{
		"rpc": c.URL(), "key": hexutil.Encode(crypto.FromECDSA(devnet.Developer(developer).Key)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(append(order, '\n')); err != nil {
		t.Fatal("telling the facilitator what to do:", err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the facilitator does not start: %v\n%s", err, &stderr)
	}
	return strings.TrimSpace(address)
}
