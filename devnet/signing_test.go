package devnet_test

import (
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/math"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
)

var typedFields = apitypes.Types{
	"EIP712Domain": {
		{Name: "name", Type: "string"},
		{Name: "version", Type: "string"},
		{Name: "chainId", Type: "uint256"},
		{Name: "verifyingContract", Type: "address"},
	},
	"TransferWithAuthorization": authorizationFields,
	"ReceiveWithAuthorization":  authorizationFields,
	"CancelAuthorization":       {{Name: "authorizer", Type: "address"}, {Name: "nonce", Type: "bytes32"}},
	"Permit": {
		{Name: "owner", Type: "address"},
		{Name: "spender", Type: "address"},
		{Name: "value", Type: "uint256"},
		{Name: "nonce", Type: "uint256"},
		{Name: "deadline", Type: "uint256"},
	},
}

var authorizationFields = []apitypes.Type{
	{Name: "from", Type: "address"},
	{Name: "to", Type: "address"},
	{Name: "value", Type: "uint256"},
	{Name: "validAfter", Type: "uint256"},
	{Name: "validBefore", Type: "uint256"},
	{Name: "nonce", Type: "bytes32"},
}

// signTyped signs as wallets do: by go-ethereum's own EIP-712, not by this project's.
func signTyped(t *testing.T, key devnet.Account, primary string, message apitypes.TypedDataMessage) []byte {
	t.Helper()
	digest, _, err := apitypes.TypedDataAndHash(apitypes.TypedData{
		Types:       typedFields,
		PrimaryType: primary,
		Domain: apitypes.TypedDataDomain{
			Name: "USDC", Version: "2",
			ChainId:           math.NewHexOrDecimal256(84532),
			VerifyingContract: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
		},
		Message: message,
	})
	if err != nil {
		t.Fatal(err)
	}
	signature, err := crypto.Sign(digest, key.Key)
	if err != nil {
		t.Fatal(err)
	}
	signature[64] += 27
	return signature
}

// authorization is one that is valid for a minute; tests spoil it.
type authorization struct {
	from, to                common.Address
	value                   *uint256.Int
	validAfter, validBefore int64
	nonce                   common.Hash
}

var nonces int64

func (r *room) authorize(from, to common.Address, usdc uint64) authorization {
	nonces++
	now := r.now()
	return authorization{
		from: from, to: to, value: devnet.USDC(usdc),
		validAfter: now.Add(-10 * time.Second).Unix(), validBefore: now.Add(time.Minute).Unix(),
		nonce: crypto.Keccak256Hash(big.NewInt(nonces).Bytes()),
	}
}

func (a authorization) signed(t *testing.T, primary string, key devnet.Account) []byte {
	t.Helper()
	return signTyped(t, key, primary, apitypes.TypedDataMessage{
		"from": a.from.Hex(), "to": a.to.Hex(), "value": a.value.Dec(),
		"validAfter":  big.NewInt(a.validAfter).String(),
		"validBefore": big.NewInt(a.validBefore).String(),
		"nonce":       a.nonce.Hex(),
	})
}

// The two overloads that take a signature: in one piece, or as v, r and s.
var overloads = map[string]string{"bytes": ",bytes)", "vrs": ",uint8,bytes32,bytes32)"}

const authorizationSig = "WithAuthorization(address,address,uint256,uint256,uint256,bytes32"

// call encodes transferWithAuthorization (verb "transfer") or receiveWithAuthorization ("receive").
func (a authorization) call(t *testing.T, verb, overload string, signature []byte) []byte {
	t.Helper()
	arguments := []any{a.from, a.to, a.value.ToBig(), big.NewInt(a.validAfter), big.NewInt(a.validBefore), a.nonce}
	arguments = append(arguments, signatureArguments(overload, signature)...)
	return pack(t, "USDC", verb+authorizationSig+overloads[overload], arguments...)
}

func signatureArguments(overload string, signature []byte) []any {
	if overload == "bytes" {
		return []any{signature}
	}
	return []any{signature[64], [32]byte(signature[:32]), [32]byte(signature[32:64])}
}

// highS gives the other signature of the same digest by the same key.
func highS(signature []byte) []byte {
	s := new(big.Int).SetBytes(signature[32:64])
	s.Sub(crypto.S256().Params().N, s)
	other := common.CopyBytes(signature)
	s.FillBytes(other[32:64])
	other[64] = 27 + 28 - other[64]
	return other
}
