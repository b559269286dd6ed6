package devnet

import (
	_ "embed" // the compiled contracts
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/x402"
)

// ChainID is the id of Base Sepolia, which the local chain uses.
const ChainID = 84532

// Where the contracts stand on Base Sepolia, and here.
var (
	// TokenAddress is USDC.
	TokenAddress = common.HexToAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
	// MulticallAddress is Multicall3.
	MulticallAddress = common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")
)

// Network describes the local chain as the protocol's code wants it.
func Network() x402.Network {
	return x402.Network{
		ID:      "eip155:84532",
		V1Name:  "base-sepolia",
		ChainID: ChainID,
		Testnet: true,
		Asset: x402.Asset{
			Address:  TokenAddress,
			Symbol:   "USDC",
			Name:     "USDC",
			Version:  "2",
			Decimals: 6,
		},
	}
}

//go:embed contracts/contracts.json
var compiled []byte

// Contract is a compiled contract.
type Contract struct {
	ABI abi.ABI
	// Code creates the contract; its constructor's arguments follow it.
	Code hexutil.Bytes `json:"bytecode"`
	// Deployed is the code that stands on the chain, for genesis blocks and the like.
	Deployed hexutil.Bytes `json:"deployedBytecode"`
	// Storage says where the state variables are.
	Storage map[string]StorageSlot `json:"storage"`
}

// StorageSlot is the place of a state variable: its slot, and its offset in the slot in bytes from the right.
type StorageSlot struct {
	Slot   uint64 `json:"slot"`
	Offset uint   `json:"offset"`
}

// contracts decodes the compiled contracts by name: USDC, Wallet, HostileWallet, Multicall3.
var contracts = sync.OnceValues(func() (map[string]*Contract, error) {
	var file struct {
		Contracts map[string]struct {
			Contract
			ABI json.RawMessage `json:"abi"`
		} `json:"contracts"`
	}
	if err := json.Unmarshal(compiled, &file); err != nil {
		return nil, fmt.Errorf("devnet: decoding the compiled contracts: %w", err)
	}
	all := make(map[string]*Contract, len(file.Contracts))
	for name, f := range file.Contracts {
		c := f.Contract
		var err error
		if c.ABI, err = abi.JSON(strings.NewReader(string(f.ABI))); err != nil {
			return nil, fmt.Errorf("devnet: decoding the ABI of %s: %w", name, err)
		}
		all[name] = &c
	}
	return all, nil
})

// CompiledContract gives the compiled contract of that name: "USDC", "Wallet", "HostileWallet" or
// "Multicall3". With it another development chain can be furnished like this one.
func CompiledContract(name string) (*Contract, error) {
	all, err := contracts()
	if err != nil {
		return nil, err
	}
	c, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("devnet: there is no contract %q", name)
	}
	return c, nil
}
