package devnet

import (
	"crypto/ecdsa"
	"encoding/binary"
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Account is an account of the local chain with its key.
type Account struct {
	Address common.Address
	Key     *ecdsa.PrivateKey
}

// The keys of the mnemonic "test test test test test test test test test test test junk" at
// m/44'/60'/0'/0/0 to 9, which every development chain uses. The whole world knows them.
var developerKeys = [10]string{
	"ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
	"59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
	"5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
	"7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
	"47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
	"8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
	"92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
	"4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
	"dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
	"2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
}

// Developer gives the i-th of the ten well-known development accounts (0 to 9, counted round beyond).
// Each has 10,000 ether and 1,000,000 USDC in the genesis block.
func Developer(i int) Account {
	return account(common.FromHex(developerKeys[uint(i)%uint(len(developerKeys))]))
}

// Payer gives the i-th of the payers that tests use by the hundred. Its key is
// keccak256("payer" ‖ i as 8 bytes, big-endian). The first Options.Payers of them have 100 ether and
// 1,000 USDC in the genesis block.
func Payer(i int) Account {
	if known, ok := payers.Load(i); ok {
		return known.(Account)
	}
	payer := account(crypto.Keccak256([]byte("payer"), binary.BigEndian.AppendUint64(nil, uint64(i))))
	payers.Store(i, payer)
	return payer
}

// payers holds those that were derived already: each chain funds hundreds.
var payers sync.Map

// Operator is the account that owns the token and sends what Mint, Fund, Pause and the like do. Tests
// leave its nonces alone.
func Operator() Account {
	return account(crypto.Keccak256([]byte("operator")))
}

// account makes the account of a secret of 32 bytes.
func account(secret []byte) Account {
	key := secp256k1.PrivKeyFromBytes(secret).ToECDSA()
	key.Curve = crypto.S256() // the same curve, but go-ethereum signs only for its own
	return Account{Address: crypto.PubkeyToAddress(key.PublicKey), Key: key}
}
