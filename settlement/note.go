package settlement

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// notePrefix begins the Raw of a note. No transaction can begin like that: typed ones begin with 0x7f at most, legacy ones
// with 0xc0 at least (EIP-2718).
const notePrefix = 0x80

const noteHeader = 1 + common.AddressLength + 8

// NewNote makes a journal's entry for a payment that is handed to somebody else, who will make the transaction. It is
// recorded before it is handed over, as a transaction is before it is broadcast, so that the ledger knows from then on that
// money may move. desk and nonce stand in the place of the wallet and its nonce: a note's number in a sequence that
// nobody else writes. content says who was handed the payment; it must be fit for being kept.
func NewNote(chainID uint64, desk common.Address, nonce uint64, payment string, content []byte) Transaction {
	raw := make([]byte, noteHeader, noteHeader+len(content))
	raw[0] = notePrefix
	copy(raw[1:], desk[:])
	binary.BigEndian.PutUint64(raw[1+common.AddressLength:], nonce)
	raw = append(raw, content...)
	return Transaction{
		ChainID: chainID, Wallet: desk, Nonce: nonce, Hash: crypto.Keccak256Hash(raw), Raw: raw, Payments: []string{payment},
	}
}

// Note gives the content of a note; ok is false for a transaction. A note's hash is on no chain, and its wallet has no key:
// it can be neither broadcast nor mined.
func (t *Transaction) Note() (content []byte, ok bool) {
	if len(t.Raw) < noteHeader || t.Raw[0] != notePrefix {
		return nil, false
	}
	return t.Raw[noteHeader:], true
}
