package chain

import (
	"encoding/json"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
)

// sizesProgram is the code of a contract that is never made: run by an eth_call without recipient, it returns, for each
// address that follows it in 32 bytes, the size of the code there in 32 bytes.
var sizesProgram = []byte{
	0x60, sizesLength, 0x38, 0x03, // PUSH1, CODESIZE, SUB: the size of what follows
	0x80, 0x60, sizesLength, 0x60, 0, 0x39, // DUP1, PUSH1, PUSH1 0, CODECOPY
	0x60, 0, // PUSH1 0: where we are
	0x5b,       // 12: JUMPDEST
	0x80, 0x51, // DUP1, MLOAD: the address
	0x3b, 0x81, 0x52, // EXTCODESIZE, DUP2, MSTORE: the size in its place
	0x60, 32, 0x01, // PUSH1 32, ADD: the next one
	0x81, 0x81, 0x10, // DUP2, DUP2, LT: is there one?
	0x60, 12, 0x57, // PUSH1 12, JUMPI
	0x50, 0x60, 0, 0xf3, // POP, PUSH1 0, RETURN
}

// sizesLength is where the addresses begin.
const sizesLength = 31

const word = 32

// CodeSizesQuery asks for the size of the code at each of the accounts, in one call, of which nodes count one, however many accounts
// there are. There must be one at least, and no more than a few hundred. A node that can't do it gives an Err; CodeQuery asks
// for one account.
func CodeSizesQuery(accounts []common.Address, sizes *[]uint64) *Query {
	data := make([]byte, len(sizesProgram)+len(accounts)*word)
	copy(data, sizesProgram)
	for i, a := range accounts {
		copy(data[len(sizesProgram)+(i+1)*word-common.AddressLength:], a[:])
	}
	return &Query{
		method: "eth_call", args: []any{map[string]any{"data": hexutil.Bytes(data)}, "latest"}, optional: true,
		decode: func(b json.RawMessage) error {
			var ret hexutil.Bytes
			if err := json.Unmarshal(b, &ret); err != nil {
				return err
			}
			if len(ret) != len(accounts)*word {
				return fmt.Errorf("%d bytes for the code sizes of %d accounts", len(ret), len(accounts))
			}
			got := make([]uint64, len(accounts))
			for i := range got {
				for _, b := range ret[i*word : (i+1)*word] {
					got[i] = got[i]<<8 | uint64(b)
				}
			}
			*sizes = got
			return nil
		},
	}
}

// TryCallQuery is CallQuery where a node's refusal to run the call says nothing against the node.
func TryCallQuery(m Message, result *[]byte) *Query {
	q := CallQuery(m, result)
	q.optional = true
	return q
}
