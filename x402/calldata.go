package x402

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"
)

// Topics of the token's events: the first entry of a log's Topics.
var (
	// TopicAuthorizationUsed has the authorizer and the nonce as the second and third topic.
	TopicAuthorizationUsed = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
	// TopicAuthorizationCanceled has the authorizer and the nonce as the second and third topic.
	TopicAuthorizationCanceled = crypto.Keccak256Hash([]byte("AuthorizationCanceled(address,bytes32)"))
	// TopicTransfer has sender and recipient as the second and third topic and the value as data.
	TopicTransfer = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
)

type selector [4]byte

// Selectors of the token's functions.
var (
	selectorTransfer = selectorOf("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32," +
		"uint8,bytes32,bytes32)")
	selectorTransferBytes      = selectorOf("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)")
	selectorAuthorizationState = selectorOf("authorizationState(address,bytes32)")
	selectorBalanceOf          = selectorOf("balanceOf(address)")
	selectorName               = selectorOf("name()")
	selectorVersion            = selectorOf("version()")
	selectorDecimals           = selectorOf("decimals()")
	selectorDomainSeparator    = selectorOf("DOMAIN_SEPARATOR()")
)

func selectorOf(function string) selector { return selector(crypto.Keccak256([]byte(function))[:4]) }

// Sizes of the two overloads' calldata: both begin with the six fields.
const (
	word         = 32
	fieldsSize   = 4 + 6*word
	transferSize = fieldsSize + 3*word
	// bytesOffset is where the signature of the bytes overload stands, counted from behind the selector.
	bytesOffset = 7 * word
	bytesStart  = 4 + bytesOffset + word
)

// TransferCalldata is the call of transferWithAuthorization that executes a: the (v, r, s) overload for a
// signature of 65 bytes, with v 0 and 1 written as 27 and 28, and the bytes overload for any other. A
// contract wallet may mean something of its own by 65 bytes: use TransferCalldataBytes for accounts with code.
func (a *Authorization) TransferCalldata(sig []byte) []byte {
	if len(sig) != SignatureLength {
		return a.TransferCalldataBytes(sig)
	}
	data := make([]byte, transferSize)
	copy(data, selectorTransfer[:])
	a.putWords(data[4:])
	tail := data[fieldsSize:]
	tail[word-1] = normalV(sig[64])
	copy(tail[word:], sig[:64])
	return data
}

// TransferCalldataBytes is the call of transferWithAuthorization's bytes overload, with sig as it is.
func (a *Authorization) TransferCalldataBytes(sig []byte) []byte {
	data := make([]byte, bytesStart+padded(len(sig)))
	copy(data, selectorTransferBytes[:])
	a.putWords(data[4:])
	data[fieldsSize+word-1] = bytesOffset
	binary.BigEndian.PutUint64(data[bytesStart-8:], uint64(len(sig)))
	copy(data[bytesStart:], sig)
	return data
}

// padded rounds n up to whole words.
func padded(n int) int { return (n + word - 1) / word * word }

var errCalldata = errors.New("not a call of transferWithAuthorization")

// ParseTransferCalldata reads back what the two builders make, and refuses all else, other encodings of
// the same call among it. A (v, r, s) call gives a signature of 65 bytes. sig is part of data.
func ParseTransferCalldata(data []byte) (a Authorization, sig []byte, err error) {
	if len(data) < fieldsSize {
		return Authorization{}, nil, fmt.Errorf("%w: %d bytes", errCalldata, len(data))
	}
	switch selector(data[:4]) {
	case selectorTransfer:
		sig, err = parseVRS(data)
	case selectorTransferBytes:
		sig, err = parseSignatureBytes(data)
	default:
		err = fmt.Errorf("%w: selector %#x", errCalldata, data[:4])
	}
	if err != nil {
		return Authorization{}, nil, err
	}
	fields := data[4:fieldsSize]
	if !isZero(fields[:12]) || !isZero(fields[word:word+12]) {
		return Authorization{}, nil, fmt.Errorf("%w: an address is longer than 20 bytes", errCalldata)
	}
	a.From = common.Address(fields[12:word])
	a.To = common.Address(fields[word+12 : 2*word])
	a.Value.SetBytes32(fields[2*word:])
	a.ValidAfter.SetBytes32(fields[3*word:])
	a.ValidBefore.SetBytes32(fields[4*word:])
	a.Nonce = common.Hash(fields[5*word:])
	return a, sig, nil
}

func parseVRS(data []byte) ([]byte, error) {
	if len(data) != transferSize {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", errCalldata, len(data), transferSize)
	}
	tail := data[fieldsSize:]
	v := tail[word-1]
	if !isZero(tail[:word-1]) || normalV(v) != v {
		return nil, fmt.Errorf("%w: v is not one byte, or 0 or 1", errCalldata)
	}
	sig := make([]byte, SignatureLength)
	copy(sig, tail[word:])
	sig[64] = v
	return sig, nil
}

func parseSignatureBytes(data []byte) ([]byte, error) {
	if len(data) < bytesStart {
		return nil, fmt.Errorf("%w: %d bytes", errCalldata, len(data))
	}
	tail := data[bytesStart:]
	size, ok := smallWord(data[bytesStart-word : bytesStart])
	offset, ok2 := smallWord(data[fieldsSize : fieldsSize+word])
	if !ok || !ok2 || offset != bytesOffset || size > len(tail) || padded(size) != len(tail) || !isZero(tail[size:]) {
		return nil, fmt.Errorf("%w: the signature's bytes are not encoded as usual", errCalldata)
	}
	return tail[:size:size], nil
}

// smallWord is the number in a word, if it is small enough to be a size.
func smallWord(w []byte) (int, bool) {
	n := binary.BigEndian.Uint32(w[word-4:])
	return int(n & 0x7fffffff), isZero(w[:word-4]) && n <= 0x7fffffff
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// AuthorizationStateCalldata asks the token whether id was used or cancelled (ParseBool).
func (id AuthorizationID) AuthorizationStateCalldata() []byte {
	data := make([]byte, 4+2*word)
	copy(data, selectorAuthorizationState[:])
	copy(data[4+12:], id.Payer[:])
	copy(data[4+word:], id.Nonce[:])
	return data
}

// BalanceOfCalldata asks the token for a balance in atomic units (ParseUint256).
func BalanceOfCalldata(owner common.Address) []byte {
	data := make([]byte, 4+word)
	copy(data, selectorBalanceOf[:])
	copy(data[4+12:], owner[:])
	return data
}

// NameCalldata asks the token for its name, part of its domain (ParseString).
func NameCalldata() []byte { return bytes.Clone(selectorName[:]) }

// VersionCalldata asks the token for its domain's version (ParseString).
func VersionCalldata() []byte { return bytes.Clone(selectorVersion[:]) }

// DecimalsCalldata asks the token for the decimals of its unit (ParseUint256).
func DecimalsCalldata() []byte { return bytes.Clone(selectorDecimals[:]) }

// DomainSeparatorCalldata asks the token for its separator, a bytes32 (compare with Domain.Separator).
func DomainSeparatorCalldata() []byte { return bytes.Clone(selectorDomainSeparator[:]) }

var errReturn = errors.New("the contract's answer is not what its interface promises")

// ParseUint256 reads the answer of a function that returns a number.
func ParseUint256(ret []byte) (uint256.Int, error) {
	if len(ret) != word {
		return uint256.Int{}, fmt.Errorf("%w: %d bytes instead of a number", errReturn, len(ret))
	}
	var v uint256.Int
	v.SetBytes32(ret)
	return v, nil
}

// ParseBool reads the answer of a function that returns a bool.
func ParseBool(ret []byte) (bool, error) {
	if len(ret) != word || !isZero(ret[:word-1]) || ret[word-1] > 1 {
		return false, fmt.Errorf("%w: not a bool", errReturn)
	}
	return ret[word-1] == 1, nil
}

// ParseString reads the answer of a function that returns a string.
func ParseString(ret []byte) (string, error) {
	if len(ret) < 2*word {
		return "", fmt.Errorf("%w: %d bytes instead of a string", errReturn, len(ret))
	}
	offset, ok := smallWord(ret[:word])
	size, ok2 := smallWord(ret[word : 2*word])
	if !ok || !ok2 || offset != word || size > len(ret)-2*word {
		return "", fmt.Errorf("%w: not a string", errReturn)
	}
	return string(ret[2*word : 2*word+size]), nil
}
