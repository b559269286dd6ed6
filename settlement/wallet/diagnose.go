package wallet

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// viewGas bounds calls of the token's views.
const viewGas = 500_000

// facts are what the chain knows that can be to blame for a transfer that fails.
type facts struct {
	head                 chain.Head
	tokenCode, payerCode []byte
	state, balance       []byte
	name, version        []byte
	// noState: the token has no such function.
	noState bool
}

// facts asks them all at once.
func (s *Settler) facts(ctx context.Context, in settlement.Intent) (facts, error) {
	var f facts
	a, token := in.Authorization, s.network.Asset.Address
	view := func(data []byte, result *[]byte) *chain.Query {
		return chain.CallQuery(chain.Message{From: s.lanes[0].address, To: token, Data: data, Gas: viewGas}, result)
	}
	state := view(a.ID(s.network.ChainID, token).AuthorizationStateCalldata(), &f.state)
	_, err := s.chain.Ask(ctx,
		chain.HeadQuery(&f.head), chain.CodeQuery(token, &f.tokenCode), chain.CodeQuery(a.From, &f.payerCode),
		state, view(x402.BalanceOfCalldata(a.From), &f.balance),
		view(x402.NameCalldata(), &f.name), view(x402.VersionCalldata(), &f.version),
	)
	f.noState = state.Err != nil
	return f, err
}

// blame finds why a transfer fails, in the order of the reference implementations. cause is what the
// simulation or the sent transaction said; nil if nothing was said.
func (s *Settler) blame(ctx context.Context, in settlement.Intent, t transfer, f facts, cause error) error {
	if t.signature != nil && (!t.proven || len(f.payerCode) > 0) {
		if err := s.blameSignature(ctx, in, t, f); err != nil {
			return err
		}
	}
	a, asset := in.Authorization, s.network.Asset
	if len(f.tokenCode) == 0 {
		return errNoToken(s.network)
	}
	used, err := x402.ParseBool(f.state)
	if f.noState || err != nil {
		return x402.Refuse(x402.ReasonEIP3009NotSupported, "the token %s does not know transferWithAuthorization (EIP-3009)", asset.Address)
	}
	if used {
		return x402.Refuse(x402.ReasonNonceUsed, "the authorization was used or cancelled already; sign a new one")
	}
	if name, err := x402.ParseString(f.name); err == nil && name != asset.Name {
		return x402.Refuse(x402.ReasonTokenNameMismatch, "the offer's token name is %q, the token's is %q", asset.Name, name)
	}
	if version, err := x402.ParseString(f.version); err == nil && version != asset.Version {
		return x402.Refuse(x402.ReasonTokenVersionMismatch, "the offer's token version is %q, the token's is %q", asset.Version, version)
	}
	now := uint256.NewInt(f.head.Time)
	if !a.ValidBefore.Gt(now) {
		return x402.Refuse(x402.ReasonValidBefore, "the authorization has expired; sign a new one")
	}
	if !a.ValidAfter.Lt(now) {
		return x402.Refuse(x402.ReasonValidAfter, "the authorization is not valid yet; send it later")
	}
	if balance, err := x402.ParseUint256(f.balance); err == nil && balance.Lt(&a.Value) {
		return x402.Refuse(x402.ReasonInsufficientBalance, "the payer has %s of the %s units to pay", balance.Dec(), a.Value.Dec())
	}
	return unexplained(cause)
}

// unexplained is the refusal where all facts are well: the token is paused, an account is blacklisted…
func unexplained(cause error) error {
	if re, ok := errors.AsType[*chain.RevertError](cause); ok {
		e := x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer: %s", re.Reason)
		e.Err = cause
		return e
	}
	return x402.Refuse(x402.ReasonTransactionFailed, "the transaction failed, although the transfer is possible now")
}

// blameSignature judges a signature that the payer's key did not make, or of an account that runs code: the code must
// accept it.
func (s *Settler) blameSignature(ctx context.Context, in settlement.Intent, t transfer, f facts) error {
	if len(f.payerCode) == 0 {
		if len(t.signature) != x402.SignatureLength {
			return x402.Refuse(x402.ReasonUndeployedWallet, "the signature is a contract wallet's, but there is no contract at %s", in.Authorization.From)
		}
		return x402.Refuse(x402.ReasonSignature, "the signature is not that of %s", in.Authorization.From)
	}
	digest := in.Authorization.Digest(s.separator)
	answer, err := s.chain.Call(ctx, chain.Message{
		From: s.network.Asset.Address, To: in.Authorization.From,
		Data: isValidSignature(digest, t.signature), Gas: s.set().ContractGas,
	})
	if _, reverted := errors.AsType[*chain.RevertError](err); err != nil && !reverted {
		return err
	}
	if err != nil || len(answer) < 32 || common.Hash(answer[:32]) != magicWord {
		return x402.Refuse(x402.ReasonSignature, "the contract wallet %s does not accept the signature", in.Authorization.From)
	}
	return nil
}

// magic is both the selector of isValidSignature(bytes32,bytes) and the answer that means yes (EIP-1271).
var magic = [4]byte{0x16, 0x26, 0xba, 0x7e}

var magicWord = common.Hash{0: magic[0], 1: magic[1], 2: magic[2], 3: magic[3]}

func isValidSignature(digest common.Hash, sig []byte) []byte {
	data := make([]byte, 4+3*32+(len(sig)+31)/32*32)
	copy(data, magic[:])
	copy(data[4:], digest[:])
	data[4+2*32-1] = 2 * 32
	binary.BigEndian.PutUint64(data[4+3*32-8:], uint64(len(sig)))
	copy(data[4+3*32:], sig)
	return data
}

func errNoToken(n x402.Network) error {
	return x402.Refuse(x402.ReasonEIP3009NotSupported, "there is no contract at %s on %s", n.Asset.Address, n.ID)
}
