package bed

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"testing"
	"time"
)

// Peer is a script that stays and answers one line with one line.
type Peer struct {
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// ErrPeer is what a peer answers where the code that it stands for throws.
var ErrPeer = errors.New("the peer refused")

// NewPeer starts a script of the folder dir; it ends with the test, and after runTimeout at the latest.
func NewPeer(t testing.TB, dir, script string) *Peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), runTimeout)
	cmd := exec.CommandContext(ctx, "node", script)
	p := new(Peer)
	cmd.Dir, cmd.Stderr, cmd.WaitDelay = dir, &p.stderr, 5*time.Second
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal("starting node:", err)
	}
	t.Cleanup(func() {
		_ = p.in.Close() // that ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("node %s: %v\n%s", script, err, &p.stderr)
		}
		cancel()
	})
	return p
}

// Ask has value done with; the result goes into out, unless that is nil. An error that is ErrPeer says what it threw.
func (p *Peer) Ask(job string, value, out any) error {
	line, err := json.Marshal(map[string]any{"job": job, "value": value})
	if err != nil {
		return fmt.Errorf("asking the peer: %w", err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("asking the peer: %w", err)
	}
	if line, err = p.out.ReadBytes('\n'); err != nil {
		return fmt.Errorf("reading the peer's answer: %w", err)
	}
	var answer struct {
		Value json.RawMessage `json:"value"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("reading the peer's answer: %w", err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%w: %s: %s", ErrPeer, job, answer.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, out)
}
