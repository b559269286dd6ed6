package devnet

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
)

// What the accounts have in the genesis block.
const (
	developerEther = 10_000
	developerUSDC  = 1_000_000
	payerEther     = 100
	payerUSDC      = 1_000
	operatorEther  = 1_000_000_000
)

// newGenesis describes the first block: the forks up to Osaka, the contracts and the funded accounts.
func newGenesis(o Options, time uint64) (*core.Genesis, error) {
	config := *params.AllDevChainProtocolChanges // shared by the process: never to be written to
	config.ChainID = big.NewInt(ChainID)
	config.BogotaTime = nil // not in use anywhere, and its prices for gas are others

	alloc := core.SystemContractAllocs()
	usdc := make(map[common.Address]uint64, o.Payers+len(developerKeys))
	for i := range developerKeys {
		a := Developer(i).Address
		alloc[a], usdc[a] = types.Account{Balance: ether(developerEther)}, developerUSDC
	}
	for i := range o.Payers {
		a := Payer(i).Address
		alloc[a], usdc[a] = types.Account{Balance: ether(payerEther)}, payerUSDC
	}
	alloc[Operator().Address] = types.Account{Balance: ether(operatorEther)}

	token, err := CompiledContract("USDC")
	if err != nil {
		return nil, err
	}
	multicall, err := CompiledContract("Multicall3")
	if err != nil {
		return nil, err
	}
	alloc[TokenAddress] = types.Account{
		Balance: new(big.Int), Nonce: 1, Code: token.Deployed, Storage: tokenStorage(token, Operator().Address, usdc),
	}
	alloc[MulticallAddress] = types.Account{Balance: new(big.Int), Nonce: 1, Code: multicall.Deployed}

	return &core.Genesis{Config: &config, GasLimit: o.GasLimit, Timestamp: time, Alloc: alloc}, nil
}

// TokenStorage is the storage of a token that owner may mint and of which nobody has any yet.
func TokenStorage(owner common.Address) (map[common.Hash]common.Hash, error) {
	token, err := CompiledContract("USDC")
	if err != nil {
		return nil, err
	}
	return tokenStorage(token, owner, nil), nil
}

// tokenStorage lays out owner, balances (in whole USDC) and their sum as the token's code reads them.
func tokenStorage(token *Contract, owner common.Address, usdc map[common.Address]uint64) map[common.Hash]common.Hash {
	storage := make(map[common.Hash]common.Hash, len(usdc)+2)
	at := func(variable string) common.Hash {
		return uint256.NewInt(token.Storage[variable].Slot).Bytes32()
	}
	storage[at("owner")] = common.BytesToHash(owner.Bytes())
	balances, sum := at("balanceOf"), new(uint256.Int)
	for a, n := range usdc {
		units := USDC(n)
		sum.Add(sum, units)
		key := crypto.Keccak256Hash(common.LeftPadBytes(a.Bytes(), 32), balances.Bytes())
		storage[key] = units.Bytes32()
	}
	if !sum.IsZero() {
		storage[at("totalSupply")] = sum.Bytes32()
	}
	return storage
}

// USDC gives n whole USDC in atomic units.
func USDC(n uint64) *uint256.Int {
	return new(uint256.Int).Mul(uint256.NewInt(n), uint256.NewInt(1_000_000))
}

// ether gives n ether in wei.
func ether(n int64) *big.Int {
	return new(big.Int).Mul(big.NewInt(n), big.NewInt(params.Ether))
}
