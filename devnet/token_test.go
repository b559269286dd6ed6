package devnet_test

import (
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient/gethclient"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// The identifiers by which everybody knows USDC, copied from the deployed token's interface.
func TestTokenLooksLikeUSDC(t *testing.T) {
	for contract, methods := range map[string]map[string]string{
		"USDC": {
			"transfer(address,uint256)":                                   "a9059cbb",
			"transferFrom(address,address,uint256)":                       "23b872dd",
			"approve(address,uint256)":                                    "095ea7b3",
			"transfer" + authorizationSig + overloads["vrs"]:              "e3ee160e",
			"transfer" + authorizationSig + overloads["bytes"]:            "cf092995",
			"receive" + authorizationSig + overloads["vrs"]:               "ef55bec6",
			"receive" + authorizationSig + overloads["bytes"]:             "88b7ab63",
			"cancelAuthorization(address,bytes32" + overloads["vrs"]:      "5a049a70",
			"cancelAuthorization(address,bytes32" + overloads["bytes"]:    "b7b72899",
			"permit(address,address,uint256,uint256" + overloads["vrs"]:   "d505accf",
			"permit(address,address,uint256,uint256" + overloads["bytes"]: "9fd5a6cf",
			"authorizationState(address,bytes32)":                         "e94a0102",
			"DOMAIN_SEPARATOR()":                                          "3644e515",
		},
		"Wallet":     {"isValidSignature(bytes32,bytes)": "1626ba7e"},
		"Multicall3": {"aggregate3((address,bool,bytes)[])": "82ad56cb"},
	} {
		for signature, selector := range methods {
			if got := hex.EncodeToString(method(t, contract, signature).ID); got != selector {
				t.Errorf("%s of %s has selector %s, want %s", signature, contract, got, selector)
			}
		}
	}

	r := start(t, devnet.Options{})
	for signature, want := range map[string]any{
		"name()": "USDC", "symbol()": "USDC", "version()": "2", "decimals()": uint8(6), "currency()": "USD",
		"DOMAIN_SEPARATOR()": [32]byte(
			common.HexToHash("0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818")),
		"TRANSFER_WITH_AUTHORIZATION_TYPEHASH()": [32]byte(
			common.HexToHash("0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267")),
		"RECEIVE_WITH_AUTHORIZATION_TYPEHASH()": [32]byte(
			common.HexToHash("0xd099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8")),
		"CANCEL_AUTHORIZATION_TYPEHASH()": [32]byte(
			common.HexToHash("0x158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429")),
		"PERMIT_TYPEHASH()": [32]byte(
			common.HexToHash("0x6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9")),
		"owner()": devnet.Operator().Address, "paused()": false,
	} {
		if got := r.read(signature)[0]; got != want {
			t.Errorf("%s is %v, want %v", signature, got, want)
		}
	}
	supply := devnet.USDC(10*1_000_000 + 1000*1_000)
	if got := r.read("totalSupply()")[0].(*big.Int); got.Cmp(supply.ToBig()) != 0 {
		t.Errorf("the supply is %s, want %s", got, supply)
	}
}

// With the compiled code and its storage, the token can be put anywhere; here by an override of the state.
func TestTokenElsewhere(t *testing.T) {
	r := start(t, devnet.Options{})
	token, err := devnet.CompiledContract("USDC")
	r.must(err)
	owner, elsewhere := devnet.Developer(4).Address, common.Address{0x99}
	storage, err := devnet.TokenStorage(owner)
	r.must(err)
	client := gethclient.New(r.client.Client())
	overrides := map[common.Address]gethclient.OverrideAccount{elsewhere: {Code: token.Deployed, State: storage}}
	answer, err := client.CallContract(r.ctx, ethereum.CallMsg{
		From: owner, To: &elsewhere, Data: pack(t, "USDC", "mint(address,uint256)", owner, big.NewInt(1)),
	}, nil, &overrides)
	r.must(err)
	if minted := new(big.Int).SetBytes(answer); minted.Int64() != 1 {
		t.Errorf("minting elsewhere answered %x", answer)
	}
	if _, err := devnet.CompiledContract("Tether"); err == nil {
		t.Error("there is a contract that there is not")
	}
}

func TestERC20(t *testing.T) {
	r := start(t, devnet.Options{})
	a, b, c := devnet.Developer(0), devnet.Developer(1), devnet.Payer(100_000)
	token := devnet.TokenAddress
	million := devnet.USDC(1_000_000)

	amount := devnet.USDC(400_000)
	receipt := r.succeed(a, token, pack(t, "USDC", "transfer(address,uint256)", c.Address, amount.ToBig()))
	wantLogs(t, receipt, logTransfer(a.Address, c.Address, amount.Bytes32()))
	r.wantBalance(c.Address, amount)
	r.wantBalance(a.Address, million.Clone().Sub(million, amount))
	r.refused(a, token, pack(t, "USDC", "transfer(address,uint256)", c.Address, million.ToBig()),
		"ERC20: transfer amount exceeds balance")
	r.refused(a, token, pack(t, "USDC", "transfer(address,uint256)", common.Address{}, amount.ToBig()),
		"ERC20: transfer to the zero address")

	from := pack(t, "USDC", "transferFrom(address,address,uint256)", a.Address, b.Address, devnet.USDC(3).ToBig())
	r.refused(b, token, from, "ERC20: transfer amount exceeds allowance")
	r.succeed(a, token, pack(t, "USDC", "approve(address,uint256)", b.Address, devnet.USDC(5).ToBig()))
	r.succeed(b, token, from)
	if got := r.read("allowance(address,address)", a.Address, b.Address)[0].(*big.Int); got.Cmp(devnet.USDC(2).ToBig()) != 0 {
		t.Errorf("the allowance left is %s", got)
	}
	r.refused(b, token, from, "ERC20: transfer amount exceeds allowance")
}

func TestOnlyTheOwnerRules(t *testing.T) {
	r := start(t, devnet.Options{})
	stranger := devnet.Developer(3)
	for _, data := range [][]byte{
		pack(t, "USDC", "mint(address,uint256)", stranger.Address, big.NewInt(1)),
		pack(t, "USDC", "pause()"),
		pack(t, "USDC", "unpause()"),
		pack(t, "USDC", "blacklist(address)", stranger.Address),
		pack(t, "USDC", "unBlacklist(address)", stranger.Address),
		pack(t, "USDC", "transferOwnership(address)", stranger.Address),
	} {
		r.refused(stranger, devnet.TokenAddress, data, "Ownable: caller is not the owner")
	}
}

func TestTransferWithAuthorization(t *testing.T) {
	r := start(t, devnet.Options{})
	payer, stranger := devnet.Payer(1), devnet.Developer(9)
	to := devnet.Payer(100_001).Address
	for overload := range overloads {
		a := r.authorize(payer.Address, to, 7)
		signature := a.signed(t, "TransferWithAuthorization", payer)
		call := a.call(t, "transfer", overload, signature)
		// Anybody may submit it.
		receipt := r.succeed(stranger, devnet.TokenAddress, call)
		wantLogs(t, receipt, logNonce("AuthorizationUsed", a), logTransfer(a.from, a.to, a.value.Bytes32()))
		if !r.read("authorizationState(address,bytes32)", a.from, a.nonce)[0].(bool) {
			t.Errorf("%s: the authorization does not count as used", overload)
		}
		for again := range overloads {
			r.refused(stranger, devnet.TokenAddress, a.call(t, "transfer", again, signature),
				"FiatTokenV2: authorization is used or canceled")
		}
		if r.send(stranger, devnet.TokenAddress, call).Status != types.ReceiptStatusFailed {
			t.Errorf("%s: a replay did not revert", overload)
		}
	}
	r.wantBalance(to, devnet.USDC(14))
	r.wantBalance(payer.Address, devnet.USDC(1_000-14))
}

func TestAuthorizationsRefused(t *testing.T) {
	r := start(t, devnet.Options{})
	payer, to := devnet.Payer(1), devnet.Developer(1).Address
	head, err := r.client.HeaderByNumber(r.ctx, nil)
	r.must(err)
	for name, c := range map[string]struct {
		spoil  func(a *authorization)
		sign   func(signature []byte) []byte
		reason string
	}{
		"expired": {
			spoil:  func(a *authorization) { a.validBefore = int64(head.Time) },
			reason: "FiatTokenV2: authorization is expired",
		},
		"not yet": {
			spoil:  func(a *authorization) { a.validAfter = int64(head.Time) + 30 },
			reason: "FiatTokenV2: authorization is not yet valid",
		},
		"too much": {
			spoil:  func(a *authorization) { a.value = devnet.USDC(1001) },
			reason: "ERC20: transfer amount exceeds balance",
		},
		"to nobody": {
			spoil:  func(a *authorization) { a.to = common.Address{} },
			reason: "ERC20: transfer to the zero address",
		},
		"of another": {
			spoil:  func(a *authorization) { a.from = devnet.Payer(2).Address },
			reason: "FiatTokenV2: invalid signature",
		},
		"high s": {sign: highS, reason: "ECRecover: invalid signature 's' value"},
		"v of 0 or 1": {
			sign:   func(s []byte) []byte { s[64] -= 27; return s },
			reason: "ECRecover: invalid signature 'v' value",
		},
		"nobody's": {
			sign:   func(s []byte) []byte { clear(s[:32]); return s },
			reason: "ECRecover: invalid signature",
		},
	} {
		for overload := range overloads {
			a := r.authorize(payer.Address, to, 1)
			if c.spoil != nil {
				c.spoil(&a)
			}
			for verb, primary := range map[string]string{
				"transfer": "TransferWithAuthorization", "receive": "ReceiveWithAuthorization",
			} {
				signature := a.signed(t, primary, payer)
				if c.sign != nil {
					signature = c.sign(signature)
				}
				t.Run(name+"/"+overload+"/"+verb, func(t *testing.T) {
					sub := *r
					sub.T = t
					caller := devnet.Account{Address: a.to}
					sub.refused(caller, devnet.TokenAddress, a.call(t, verb, overload, signature), c.reason)
				})
			}
		}
	}

	a := r.authorize(payer.Address, to, 1)
	signature := a.signed(t, "TransferWithAuthorization", payer)
	for _, wrong := range [][]byte{signature[:64], append(signature, 0), nil} {
		r.refused(payer, devnet.TokenAddress, a.call(t, "transfer", "bytes", wrong), "ECRecover: invalid signature length")
	}
	other := a
	other.value = devnet.USDC(2)
	r.refused(payer, devnet.TokenAddress, other.call(t, "transfer", "bytes", signature), "FiatTokenV2: invalid signature")
}

func TestAuthorizationExpiresWithTheChain(t *testing.T) {
	r := start(t, devnet.Options{})
	payer := devnet.Payer(1)
	a := r.authorize(payer.Address, devnet.Developer(1).Address, 1)
	call := a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer))
	r.must(r.chain.AdvanceTime(2 * time.Minute))
	if r.send(devnet.Developer(0), devnet.TokenAddress, call).Status != types.ReceiptStatusFailed {
		t.Error("an expired authorization was executed")
	}
	if r.read("authorizationState(address,bytes32)", a.from, a.nonce)[0].(bool) {
		t.Error("an expired authorization counts as used")
	}
}

func TestReceiveWithAuthorization(t *testing.T) {
	r := start(t, devnet.Options{})
	payer, payee := devnet.Payer(2), devnet.Developer(2)
	for overload := range overloads {
		a := r.authorize(payer.Address, payee.Address, 3)
		call := a.call(t, "receive", overload, a.signed(t, "ReceiveWithAuthorization", payer))
		r.refused(devnet.Developer(3), devnet.TokenAddress, call, "FiatTokenV2: caller must be the payee")
		r.refused(payee, devnet.TokenAddress,
			a.call(t, "receive", overload, a.signed(t, "TransferWithAuthorization", payer)), "FiatTokenV2: invalid signature")
		receipt := r.succeed(payee, devnet.TokenAddress, call)
		wantLogs(t, receipt, logNonce("AuthorizationUsed", a), logTransfer(a.from, a.to, a.value.Bytes32()))
		r.refused(payee, devnet.TokenAddress, call, "FiatTokenV2: authorization is used or canceled")
	}
	r.wantBalance(payee.Address, devnet.USDC(1_000_006))
}

func TestCancelAuthorization(t *testing.T) {
	r := start(t, devnet.Options{})
	payer, stranger := devnet.Payer(3), devnet.Developer(4)
	for overload := range overloads {
		a := r.authorize(payer.Address, stranger.Address, 3)
		cancel := func(key devnet.Account) []byte {
			signature := signTyped(t, key, "CancelAuthorization", apitypes.TypedDataMessage{
				"authorizer": a.from.Hex(), "nonce": a.nonce.Hex(),
			})
			return pack(t, "USDC", "cancelAuthorization(address,bytes32"+overloads[overload],
				append([]any{a.from, a.nonce}, signatureArguments(overload, signature)...)...)
		}
		r.refused(stranger, devnet.TokenAddress, cancel(stranger), "FiatTokenV2: invalid signature")
		wantLogs(t, r.succeed(stranger, devnet.TokenAddress, cancel(payer)), logNonce("AuthorizationCanceled", a))
		r.refused(stranger, devnet.TokenAddress, cancel(payer), "FiatTokenV2: authorization is used or canceled")
		r.refused(stranger, devnet.TokenAddress,
			a.call(t, "transfer", overload, a.signed(t, "TransferWithAuthorization", payer)),
			"FiatTokenV2: authorization is used or canceled")
		if !r.read("authorizationState(address,bytes32)", a.from, a.nonce)[0].(bool) {
			t.Error("a canceled authorization does not count as used")
		}
	}
	r.wantBalance(payer.Address, devnet.USDC(1_000))
}

func TestPermit(t *testing.T) {
	r := start(t, devnet.Options{})
	holder, spender := devnet.Payer(4), devnet.Developer(5)
	permit := func(overload string, nonce, deadline int64, key devnet.Account) []byte {
		signature := signTyped(t, key, "Permit", apitypes.TypedDataMessage{
			"owner": holder.Address.Hex(), "spender": spender.Address.Hex(), "value": "123",
			"nonce": big.NewInt(nonce).String(), "deadline": big.NewInt(deadline).String(),
		})
		return pack(t, "USDC", "permit(address,address,uint256,uint256"+overloads[overload],
			append([]any{holder.Address, spender.Address, big.NewInt(123), big.NewInt(deadline)},
				signatureArguments(overload, signature)...)...)
	}
	var nonce int64
	for overload := range overloads {
		deadline := r.now().Add(time.Minute).Unix()
		r.refused(spender, devnet.TokenAddress, permit(overload, nonce, deadline, spender), "EIP2612: invalid signature")
		r.refused(spender, devnet.TokenAddress, permit(overload, nonce+1, deadline, holder), "EIP2612: invalid signature")
		r.refused(spender, devnet.TokenAddress, permit(overload, nonce, 1, holder), "FiatTokenV2: permit is expired")
		r.succeed(spender, devnet.TokenAddress, permit(overload, nonce, deadline, holder))
		r.refused(spender, devnet.TokenAddress, permit(overload, nonce, deadline, holder), "EIP2612: invalid signature")
		nonce++
		if got := r.read("nonces(address)", holder.Address)[0].(*big.Int); got.Int64() != nonce {
			t.Errorf("the next nonce is %s, want %d", got, nonce)
		}
		if got := r.read("allowance(address,address)", holder.Address, spender.Address)[0].(*big.Int); got.Int64() != 123 {
			t.Errorf("the allowance is %s, want 123", got)
		}
	}
}

func TestPause(t *testing.T) {
	r := start(t, devnet.Options{})
	payer, to := devnet.Payer(5), devnet.Developer(6)
	a := r.authorize(payer.Address, to.Address, 1)
	r.must(r.chain.Pause(r.ctx))
	for overload := range overloads {
		r.refused(to, devnet.TokenAddress, a.call(t, "transfer", overload, a.signed(t, "TransferWithAuthorization", payer)), "Pausable: paused")
		r.refused(to, devnet.TokenAddress, a.call(t, "receive", overload, a.signed(t, "ReceiveWithAuthorization", payer)), "Pausable: paused")
	}
	r.refused(to, devnet.TokenAddress, pack(t, "USDC", "transfer(address,uint256)", payer.Address, big.NewInt(1)), "Pausable: paused")
	r.refused(to, devnet.TokenAddress, pack(t, "USDC", "approve(address,uint256)", payer.Address, big.NewInt(1)), "Pausable: paused")
	if err := r.chain.Mint(r.ctx, to.Address, devnet.USDC(1)); err == nil {
		t.Error("a paused token was minted")
	}
	r.must(r.chain.Unpause(r.ctx))
	r.succeed(to, devnet.TokenAddress, a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer)))
}

func TestBlacklist(t *testing.T) {
	r := start(t, devnet.Options{})
	const reason = "Blacklistable: account is blacklisted"
	payer, to := devnet.Payer(6), devnet.Developer(7)
	a := r.authorize(payer.Address, to.Address, 1)
	transfer := a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer))
	for _, listed := range []common.Address{payer.Address, to.Address} {
		r.must(r.chain.Blacklist(r.ctx, listed))
		r.refused(devnet.Developer(0), devnet.TokenAddress, transfer, reason)
		r.refused(to, devnet.TokenAddress, a.call(t, "receive", "vrs", a.signed(t, "ReceiveWithAuthorization", payer)), reason)
		r.refused(to, devnet.TokenAddress, pack(t, "USDC", "transfer(address,uint256)", payer.Address, big.NewInt(1)), reason)
		r.must(r.chain.Unblacklist(r.ctx, listed))
	}
	r.succeed(devnet.Developer(0), devnet.TokenAddress, transfer)
}
