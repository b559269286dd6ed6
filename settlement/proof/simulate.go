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

const (
	// viewGas bounds calls of the token's views.
	viewGas = 500_000
	// transferGas bounds the simulation of a transfer. A payer's contract is a stranger's code: what it may burn is capped.
	transferGas = 600_000
)

// Simulate runs the transfer of in on the newest block. If it would be executed now, head is a block after which the
// authorization was unused: good as an Intent's ClaimBlock. If it would fail, the error is an *x402.Error with the reason, in
// the reference's order of blame; any other error wraps settlement.ErrUnavailable. Anybody may execute an authorization, so
// that what is true for the payee, who is taken for the sender, is true for all.
func Simulate(ctx context.Context, c *chain.Client, in settlement.Intent) (head uint64, err error) {
	m := chain.Message{From: in.Authorization.To, To: in.Network.Asset.Address, Data: calldata(in), Gas: transferGas}
	var result, code []byte
	call := chain.CallQuery(m, &result)
	head, err = c.Ask(ctx, call, chain.CodeQuery(m.To, &code))
	switch {
	case err != nil:
		return 0, err
	case len(code) == 0: // calls of an address without code succeed
		return 0, noToken(in.Network)
	case call.Err == nil:
		return head, nil
	}
	return 0, blame(ctx, c, in, call.Err)
}

// calldata is the call that executes the authorization, by the overload that its signature needs.
func calldata(in settlement.Intent) []byte {
	if proven(in) {
		return in.Authorization.TransferCalldata(in.Signature)
	}
	return in.Authorization.TransferCalldataBytes(in.Signature)
}

// proven: the payer's own key made the signature. If not, a contract wallet may accept it all the same.
func proven(in settlement.Intent) bool {
	signer, err := x402.Recover(in.Authorization.Digest(in.Network.Domain().Separator()), in.Signature)
	return err == nil && signer == in.Authorization.From
}

// facts are what can be to blame for a transfer that fails.
type facts struct {
	head           chain.Head
	code           []byte // the payer's
	state, balance []byte
	name, version  []byte
	noState        bool // the token does not know authorizations
}

func ask(ctx context.Context, c *chain.Client, in settlement.Intent) (facts, error) {
	var f facts
	a, token := in.Authorization, in.Network.Asset.Address
	view := func(data []byte, result *[]byte) *chain.Query {
		return chain.CallQuery(chain.Message{From: a.To, To: token, Data: data, Gas: viewGas}, result)
	}
	state := view(a.ID(in.Network.ChainID, token).AuthorizationStateCalldata(), &f.state)
	_, err := c.Ask(ctx, chain.HeadQuery(&f.head), chain.CodeQuery(a.From, &f.code), state,
		view(x402.BalanceOfCalldata(a.From), &f.balance), view(x402.NameCalldata(), &f.name), view(x402.VersionCalldata(), &f.version))
	f.noState = state.Err != nil
	return f, err
}

// blame finds why the transfer fails; cause is what the simulation said.
func blame(ctx context.Context, c *chain.Client, in settlement.Intent, cause error) error {
	f, err := ask(ctx, c, in)
	if err != nil {
		return err
	}
	if err := blameSignature(ctx, c, in, f.code); err != nil {
		return err
	}
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
	return unexplained(cause)
}

// unexplained is the refusal where all facts are well: the token is paused, an account is blacklisted…
func unexplained(cause error) error {
	e := x402.Refuse(x402.ReasonSimulationFailed, "the token refuses the transfer")
	if re, ok := errors.AsType[*chain.RevertError](cause); ok {
		e.Detail += ": " + re.Reason
	}
	e.Err = cause
	return e
}

// blameSignature judges a signature that the payer's key did not make, or that of an account which runs code: the code must
// accept it, as the token will ask it.
func blameSignature(ctx context.Context, c *chain.Client, in settlement.Intent, code []byte) error {
	from := in.Authorization.From
	if len(code) == 0 {
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
		From: in.Network.Asset.Address, To: from, Data: validityCall(digest, in.Signature), Gas: transferGas,
	})
	if _, reverted := errors.AsType[*chain.RevertError](err); err != nil && !reverted {
		return err
	}
	if err != nil || len(answer) < common.HashLength || common.Hash(answer[:common.HashLength]) != accepts {
		return x402.Refuse(x402.ReasonSignature, "the contract wallet %s does not accept the signature", from)
	}
	return nil
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

func noToken(n x402.Network) error {
	return x402.Refuse(x402.ReasonEIP3009NotSupported, "there is no contract at %s on %s", n.Asset.Address, n.ID)
}
