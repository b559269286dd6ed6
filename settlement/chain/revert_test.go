package chain

import (
	"bytes"
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

func TestRevertReason(t *testing.T) {
	word := func(n byte) []byte { return common.LeftPadBytes([]byte{n}, 32) }
	text := func(s string) []byte {
		b := append([]byte{0x08, 0xc3, 0x79, 0xa0}, word(32)...)
		b = append(b, word(byte(len(s)))...)
		return append(b, common.RightPadBytes([]byte(s), 32)...)
	}
	cases := []struct {
		name, text string
		data       []byte
		want       string
	}{
		{"reason", "execution reverted: x", text("paused"), "paused"},
		{"control characters", "", text("a\nb\x1b[31m"), "a b [31m"},
		{"panic", "execution reverted", append([]byte{0x4e, 0x48, 0x7b, 0x71}, word(0x11)...), "panic 0x11"},
		{"custom", "execution reverted", []byte{1, 2, 3, 4, 5}, "custom error 0x01020304"},
		{"only text", "execution reverted: out of luck", nil, "out of luck"},
		{"nothing", "execution reverted", nil, "no reason given"},
		{"cut", "x", text("paused")[:60], "custom error 0x08c379a0"},
	}
	for _, tc := range cases {
		if got := revertReason(tc.text, tc.data); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// Whatever a contract reverts with, reading it ends, and what comes out was in it.
func FuzzRevertReason(f *testing.F) {
	f.Add([]byte{0x08, 0xc3, 0x79, 0xa0})
	f.Add(append([]byte{0x08, 0xc3, 0x79, 0xa0}, bytes.Repeat([]byte{0, 0, 0, 32}, 40)...))
	f.Add(append([]byte{0x08, 0xc3, 0x79, 0xa0}, bytes.Repeat([]byte{0xff}, 96)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, ok := decodeString(data); ok && !bytes.Contains(data, []byte(s)) {
			t.Errorf("%q is not in %x", s, data)
		}
		if got := revertReason("execution reverted", data); len(got) > maxMessage+4 {
			t.Errorf("%d bytes of reason", len(got))
		}
	})
}
