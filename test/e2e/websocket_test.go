package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// acceptKey is the answer to a key of the opening handshake (RFC 6455, section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// echoSockets is an upstream that sends every frame back; it knows text and close.
func echoSockets(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		acceptKey(r.Header.Get("Sec-Websocket-Key")))
	_ = rw.Flush()
	for {
		opcode, payload, err := readFrame(rw.Reader)
		if err != nil {
			return
		}
		_, _ = rw.Write(frame(opcode, payload, nil))
		_ = rw.Flush()
		if opcode == opClose {
			return
		}
	}
}

const (
	opText  = 1
	opClose = 8
)

// frame makes a final frame of up to 64 KiB (RFC 6455, section 5.2); clients mask theirs.
func frame(opcode byte, payload, mask []byte) []byte {
	f := []byte{0x80 | opcode}
	bit := byte(0)
	if mask != nil {
		bit = 0x80
	}
	if len(payload) < 126 {
		f = append(f, bit|byte(len(payload)))
	} else {
		f = binary.BigEndian.AppendUint16(append(f, bit|126), uint16(len(payload)))
	}
	f = append(f, mask...)
	for i, b := range payload {
		if mask != nil {
			b ^= mask[i%4]
		}
		f = append(f, b)
	}
	return f
}

func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		var long [2]byte
		if _, err = io.ReadFull(r, long[:]); err != nil {
			return 0, nil, err
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err = io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, err
}

// A WebSocket opens for who has paid, says so in its handshake, and then nobody touches it.
func TestWebSocket(t *testing.T) {
	r := rig.New(t, rig.Options{Site: streams, Upstream: echoSockets})
	url := r.URL("/socket")
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	handshake := func(proof ...string) string {
		lines := []string{
			"GET /socket HTTP/1.1", "Host: " + r.Addr, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: " + key,
		}
		for i := 0; i < len(proof); i += 2 {
			lines = append(lines, proof[i]+": "+proof[i+1])
		}
		return strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	for name, proof := range proofs(t, r, url) {
		w := watch(r)
		c := dial(t, r.Addr)
		_, _ = io.WriteString(c, handshake(proof...))
		from := bufio.NewReader(c)
		res, err := http.ReadResponse(from, nil) //nolint:bodyclose // the connection is no longer HTTP
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Accept") != acceptKey(key) {
			t.Fatalf("%s: the handshake: %v %v", name, res, err)
		}
		if (res.Header.Get(x402.HeaderResponse) != "") != (name == "payment") {
			t.Errorf("%s: the receipt is %q", name, res.Header.Get(x402.HeaderResponse))
		}
		for i, text := range []string{"hello", "", strings.Repeat("long ", 5000)} {
			_, _ = c.Write(frame(opText, []byte(text), []byte{1, 2, 3, byte(i)}))
			opcode, payload, err := readFrame(from)
			if err != nil || opcode != opText || !bytes.Equal(payload, []byte(text)) {
				t.Fatalf("%s: message %d: %d %.20q %v", name, i, opcode, payload, err)
			}
		}
		_, _ = c.Write(frame(opClose, []byte{3, 232}, []byte{1, 2, 3, 4}))
		if opcode, _, err := readFrame(from); err != nil || opcode != opClose {
			t.Errorf("%s: closing: %d %v", name, opcode, err)
		}
		if _, err := from.ReadByte(); err == nil {
			t.Errorf("%s: the connection stays open", name)
		}
		earned := uint64(0)
		if name == "payment" {
			earned = cent
		}
		w.seen(t, name, 1, earned)
		if name == "payment" { // it is used up
			again := sendRaw(t, r.Addr, http.MethodGet, strings.TrimSuffix(handshake(proof...), "\r\n\r\n"), "X-Again: 1")
			refused(t, "the same payment again", again, x402.ReasonNonceUsed)
		}
	}
	w := watch(r)
	refused(t, "unpaid", sendRaw(t, r.Addr, http.MethodGet, strings.TrimSuffix(handshake(), "\r\n\r\n"), "X-Unpaid: 1"), "Payment required")
	w.nothing(t, "unpaid")
}
