package proof

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

// Diagnose finds why the transfer of in fails, by the newest block and in the reference implementations' order of blame. cause is
// what a simulation said; nil if a transaction has failed, which says nothing. The code of the payer's account, a stranger's, may
// burn gas to judge the signature, if in has one. The error is an *x402.Error; any other wraps settlement.ErrUnavailable.
func Diagnose(ctx context.Context, c *chain.Client, in settlement.Intent, gas uint64, cause error) error {
	f, err := ask(ctx, c, in)
	if err != nil {
		return err
	}
	if len(f.tokenCode) == 0 {
		return NoToken(in.Network)
	}
	if err := f.blameSignature(ctx, c, in, gas); err != nil {
		return err
	}
	if err := f.blameAuthorization(in); err != nil {
		return err
	}
	return unexplained(cause)
}

// facts are what can be to blame for a transfer that fails.
type facts struct {
	head                 chain.Head
	tokenCode, payerCode []byte
	state, balance       []byte
	name, version        []byte
	noState              bool // the token does not know authorizations
}

// ask asks for them all at once.
func ask(ctx context.Context, c *chain.Client, in settlement.Intent) (*facts, error) {
	f := new(facts)
	a, token := in.Authorization, in.Network.Asset.Address
	view := func(data []byte, result *[]byte) *chain.Query {
		return chain.CallQuery(chain.Message{From: a.To, To: token, Data: data, Gas: viewGas}, result)
	}
	state := view(a.ID(in.Network.ChainID, token).AuthorizationStateCalldata(), &f.state)
	_, err := c.Ask(ctx,
		chain.HeadQuery(&f.head), chain.CodeQuery(token, &f.tokenCode), chain.CodeQuery(a.From, &f.payerCode),
		state, view(x402.BalanceOfCalldata(a.From), &f.balance),
		view(x402.NameCalldata(), &f.name), view(x402.VersionCalldata(), &f.version),
	)
	f.noState = state.Err != nil
	return f, err
}

// blameSignature judges a signature that the payer's key did not make, or that of an account which runs code: the code must
// accept it, as the token will ask it. Without a signature only the fate of the authorization is asked for.
func (f *facts) blameSignature(ctx context.Context, c *chain.Client, in settlement.Intent, gas uint64) error {
	from := in.Authorization.From
	if len(in.Signature) == 0 {
		return nil
	}
	if len(f.payerCode) == 0 {
		switch {
		case proven(in):
			return nil
		case len(in.Signature) != x402.SignatureLength:
			return x402.Refuse(x402.ReasonUndeployedWallet, "the signature is a contract wallet's, but there is no contract at %s", from)
		}
		return x402.Refuse(x402.ReasonSignature, "the signature is not that of %s", from)
	}
	digest := in.Authorization.Digest(in.Network.Domain().Separator())
	answer, err := c.Call(ctx, chain.Message{
		From: in.Network.Asset.Address, To: from, Data: validityCall(digest, in.Signature), Gas: gas,
	})
	if _, reverted := errors.AsType[*chain.RevertError](err); err != nil && !reverted {
		return err
	}
	if err != nil || len(answer) < common.HashLength || common.Hash(answer[:common.HashLength]) != accepts {
		return x402.Refuse(x402.ReasonSignature, "the contract wallet %s does not accept the signature", from)
	}
	return nil
}

// blameAuthorization judges what was signed, by what the token says of it and of itself.
func (f *facts) blameAuthorization(in settlement.Intent) error {
	a, asset := in.Authorization, in.Network.Asset
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
	if Expired(in, f.head) {
		return x402.Refuse(x402.ReasonValidBefore, "the authorization has expired; sign a new one")
	}
	if !a.ValidAfter.Lt(uint256.NewInt(f.head.Time)) {
		return x402.Refuse(x402.ReasonValidAfter, "the authorization is not valid yet; send it later")
	}
	if balance, err := x402.ParseUint256(f.balance); err == nil && balance.Lt(&a.Value) {
		return x402.Refuse(x402.ReasonInsufficientBalance, "the payer has %s of the %s units to pay", balance.Dec(), a.Value.Dec())
	}
	return nil
}

// unexplained is the refusal where all facts are well: the token is paused, an account is blacklisted…
func unexplained(cause error) error {
	if cause == nil {
		return x402.Refuse(x402.ReasonTransactionFailed, "the transaction failed, although the transfer is possible now")
	}
	e := x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer")
	if re, ok := errors.AsType[*chain.RevertError](cause); ok {
		e.Detail += ": " + re.Reason
	}
	e.Err = cause
	return e
}

// accepts is what isValidSignature answers to say yes (EIP-1271); it begins with that function's selector.
var accepts = common.Hash{0x16, 0x26, 0xba, 0x7e}

// validityCall is the call isValidSignature(digest, sig).
func validityCall(digest common.Hash, sig []byte) []byte {
	const word = common.HashLength
	data := make([]byte, 4+3*word+(len(sig)+word-1)/word*word)
	copy(data, accepts[:4])
	copy(data[4:], digest[:])
	data[4+2*word-1] = 2 * word // where the bytes begin
	binary.BigEndian.PutUint64(data[4+3*word-8:], uint64(len(sig)))
	copy(data[4+3*word:], sig)
	return data
}

// NoToken is the refusal where the asset's address has no code, so that calls of it would succeed and do nothing.
func NoToken(n x402.Network) error {
	return x402.Refuse(x402.ReasonEIP3009NotSupported, "there is no contract at %s on %s", n.Asset.Address, n.ID)
}
