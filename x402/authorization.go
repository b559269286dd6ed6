package x402

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// Authorization is the message that a payer signs: TransferWithAuthorization of
// EIP-3009. Its three numbers are uint256 on the wire and in the digest, so they
// are kept at full width here; whoever wants seconds checks the range first.
type Authorization struct {
	// From is the payer.
	From common.Address
	// To is the payee; the paywall demands its own payTo here.
	To common.Address
	// Value is the amount in atomic units of the asset.
	Value uint256.Int
	// ValidAfter and ValidBefore bound the time in which the token executes the
	// authorization, in unix seconds: ValidAfter < block time < ValidBefore.
	ValidAfter, ValidBefore uint256.Int
	// Nonce is random and used at most once per payer and token.
	Nonce common.Hash
}

// AuthorizationID names an authorization for ever: a token executes (payer, nonce)
// at most once on its chain (EIP-3009, "Unique Random Nonce").
type AuthorizationID struct {
	ChainID uint64         `json:"chain_id"`
	Asset   common.Address `json:"asset"`
	Payer   common.Address `json:"payer"`
	Nonce   common.Hash    `json:"nonce"`
}

// ID names a on the token asset of the chain chainID.
func (a *Authorization) ID(chainID uint64, asset common.Address) AuthorizationID {
	return AuthorizationID{ChainID: chainID, Asset: asset, Payer: a.From, Nonce: a.Nonce}
}
