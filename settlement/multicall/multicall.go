// Package multicall encodes many calls as one: aggregate3 of the contract Multicall3. It is pure: whether the contract
// is there, and is the one it should be, is for the caller to ask.
package multicall

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Address is where Multicall3 stands on nearly every chain, Base and Base Sepolia among them. Where it does not, the same
// address may be free, and calls of an address without code succeed and do nothing: ask for its code first.
var Address = common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")

// Call is one of the calls that aggregate3 makes, in their order and from the contract's own address.
type Call struct {
	// Target is who is called, without ether.
	Target common.Address
	// AllowFailure lets the others go on when this call reverts. Without it, all of them revert.
	AllowFailure bool
	// Data is the calldata.
	Data []byte
}

// Result is what became of one Call.
type Result struct {
	// Success is false where the call reverted. A call of an address without code succeeds.
	Success bool
	// Data is what the call returned, or the reason it reverted with: bytes of a stranger.
	Data []byte
}

// ErrMalformed says that bytes are not what the contract's interface promises.
var ErrMalformed = errors.New("multicall: malformed")

var selector = [4]byte(crypto.Keccak256([]byte("aggregate3((address,bool,bytes)[])"))[:4])

// How many words of a call and of a result stand before their bytes.
const (
	callFields   = 2
	resultFields = 1
)

// Calldata is the call of aggregate3 that makes calls.
func Calldata(calls []Call) []byte {
	size := len(selector) + prefixSize
	for _, c := range calls {
		size += word + rowSize(callFields, len(c.Data))
	}
	data := make([]byte, size)
	copy(data, selector[:])
	array := data[len(selector):]
	putInt(array, word)
	putInt(array[word:], len(calls))
	rows := array[prefixSize:]
	at := len(calls) * word
	for i, c := range calls {
		putInt(rows[i*word:], at)
		row := rows[at:]
		copy(row[word-common.AddressLength:], c.Target[:])
		if c.AllowFailure {
			row[2*word-1] = 1
		}
		putInt(row[callFields*word:], (callFields+1)*word)
		putInt(row[(callFields+1)*word:], len(c.Data))
		copy(row[(callFields+2)*word:], c.Data)
		at += rowSize(callFields, len(c.Data))
	}
	return data
}

// ParseCalldata reads back what Calldata makes, and refuses all else, other encodings of the same calls among it. The
// calls' Data are parts of data. Errors wrap ErrMalformed.
func ParseCalldata(data []byte) ([]Call, error) {
	if !bytes.HasPrefix(data, selector[:]) {
		return nil, fmt.Errorf("%w: no call of aggregate3", ErrMalformed)
	}
	r, err := newReader(data[len(selector):], callFields)
	if err != nil {
		return nil, err
	}
	calls := make([]Call, r.count)
	for i := range calls {
		fields, data, err := r.next()
		if err != nil {
			return nil, fmt.Errorf("call %d: %w", i, err)
		}
		target, ok := parseAddress(fields[:word])
		allow, ok2 := parseBool(fields[word:])
		if !ok || !ok2 {
			return nil, fmt.Errorf("%w: call %d has more than an address, or no bool", ErrMalformed, i)
		}
		calls[i] = Call{Target: target, AllowFailure: allow, Data: data}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return calls, nil
}

// ParseResults reads what aggregate3 returned for n calls, in the one encoding that compilers write. The results' Data are
// parts of ret. Errors wrap ErrMalformed: then nothing is known of any of the calls.
func ParseResults(ret []byte, n int) ([]Result, error) {
	if len(ret) == 0 {
		return nil, fmt.Errorf("%w: nothing was returned, so there may be no contract", ErrMalformed)
	}
	r, err := newReader(ret, resultFields)
	if err != nil {
		return nil, err
	}
	if r.count != n {
		return nil, fmt.Errorf("%w: %d results of %d calls", ErrMalformed, r.count, n)
	}
	results := make([]Result, n)
	for i := range results {
		fields, data, err := r.next()
		if err != nil {
			return nil, fmt.Errorf("result %d: %w", i, err)
		}
		success, ok := parseBool(fields)
		if !ok {
			return nil, fmt.Errorf("%w: result %d has no bool", ErrMalformed, i)
		}
		results[i] = Result{Success: success, Data: data}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return results, nil
}
