package x402

import "github.com/ethereum/go-ethereum/common"

// Network is an EVM chain with the asset that is paid on it.
type Network struct {
	// ID is the CAIP-2 identifier, such as "eip155:8453".
	ID string
	// V1Name is the network's name in x402 version 1, such as "base"; empty where it has none.
	V1Name  string
	ChainID uint64
	// Testnet networks may be configured with literal keys on the local chain; mainnets never.
	Testnet bool
	Asset   Asset
}

// Asset is an EIP-3009 token. Name and Version are those of its EIP-712 domain, which differ from
// chain to chain and must be right for any signature to be.
type Asset struct {
	Address  common.Address
	Symbol   string
	Name     string
	Version  string
	Decimals uint8
}
