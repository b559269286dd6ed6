package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"
)

// RevertError says that the node ran the call, and it failed. The chain has spoken.
type RevertError struct {
	// Reason is the contract's text, or the machine's ("out of gas"); text of strangers, cut and made printable.
	Reason string
	// Data is what the contract returned; nil where the node does not tell.
	Data []byte
}

// Error tells the reason.
func (e *RevertError) Error() string { return "execution reverted: " + e.Reason }

// RPCError is an endpoint's refusal.
type RPCError struct {
	Host    string
	Code    int
	Message string
}

// Error names the host.
func (e *RPCError) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Host, e.Message, e.Code) }

// executionErrors are what nodes say, besides "revert", when a call ran and failed.
var executionErrors = []string{
	"out of gas", "gas required exceeds allowance", "invalid opcode", "invalid jump", "stack underflow", "stack limit",
	"write protection", "return data out of bounds", "intrinsic gas too low", "gas uint64 overflow", "max call depth",
	"bad instruction", "invalid instruction", "outofgas", "insufficient gas for floor data",
}

// judgeError turns the error of one query into a *RevertError, if the call ran and failed, or into an *RPCError or a
// redacted error, if the endpoint did not do what it was asked.
func (e *endpoint) judgeError(err error) error {
	re, ok := errors.AsType[rpc.Error](err)
	if !ok {
		return fmt.Errorf("%s: %w", e.host, e.redact(err))
	}
	text := re.Error()
	var data []byte
	if de, ok := errors.AsType[rpc.DataError](err); ok {
		data = revertData(de.ErrorData())
	}
	lower := strings.ToLower(text)
	if re.ErrorCode() == 3 || strings.Contains(lower, "revert") || len(data) > 0 {
		return &RevertError{Reason: revertReason(text, data), Data: data}
	}
	for _, s := range executionErrors {
		if strings.Contains(lower, s) {
			return &RevertError{Reason: e.clean(text)}
		}
	}
	return &RPCError{Host: e.host, Code: re.ErrorCode(), Message: e.clean(text)}
}

func revertData(v any) []byte {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	b, err := hexutil.Decode(strings.TrimPrefix(s, "Reverted "))
	if err != nil {
		return nil
	}
	return b
}

// revertReason decodes Error(string) and Panic(uint256) of Solidity; else it gives the selector, or
// what the node said.
func revertReason(text string, data []byte) string {
	if len(data) >= 4 {
		switch binary.BigEndian.Uint32(data) {
		case 0x08c379a0:
			if s, ok := decodeString(data[4:]); ok {
				return printable(s)
			}
		case 0x4e487b71:
			if len(data) == 36 {
				return fmt.Sprintf("panic 0x%x", data[35])
			}
		}
		return fmt.Sprintf("custom error 0x%x", data[:4])
	}
	for _, prefix := range []string{"execution reverted: ", "execution reverted"} {
		text = strings.TrimPrefix(text, prefix)
	}
	if text == "" {
		return "no reason given"
	}
	return printable(text)
}

// decodeString reads the ABI encoding of one string; tokens of strangers may send anything here.
func decodeString(b []byte) (string, bool) {
	offset, ok := decodeUint(b, 0)
	if !ok {
		return "", false
	}
	length, ok := decodeUint(b, offset)
	if !ok || length > uint64(len(b))-offset-32 {
		return "", false
	}
	return string(b[offset+32 : offset+32+length]), true
}

// decodeUint reads the word at offset if it is there whole and holds a number that can be an offset in b.
func decodeUint(b []byte, offset uint64) (uint64, bool) {
	if uint64(len(b)) < 32 || offset > uint64(len(b))-32 {
		return 0, false
	}
	word := b[offset : offset+32]
	for _, x := range word[:24] {
		if x != 0 {
			return 0, false
		}
	}
	n := binary.BigEndian.Uint64(word[24:])
	return n, n <= uint64(len(b))
}
