package x402_test

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// What most tests buy: 0.01 USDC on Base Sepolia, from the payer to the seller.
var (
	sepolia, _  = x402.LookupNetwork("base-sepolia")
	base, _     = x402.LookupNetwork("base")
	separator   = sepolia.Domain().Separator()
	payerKey    = mustKey(strings.Repeat("11", 32))
	strangerKey = mustKey(strings.Repeat("22", 32))
	payer       = crypto.PubkeyToAddress(payerKey.PublicKey)
	stranger    = crypto.PubkeyToAddress(strangerKey.PublicKey)
	seller      = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
	now         = time.Unix(1_800_000_000, 0)
)

const resumeKey = "AAECAwQFBgcICQoLDA0ODw"

func mustKey(hexKey string) *ecdsa.PrivateKey {
	key, err := crypto.HexToECDSA(hexKey)
	if err != nil {
		panic(err)
	}
	return key
}

func authorization() x402.Authorization {
	return x402.Authorization{
		From:        payer,
		To:          seller,
		Value:       *uint256.NewInt(10_000),
		ValidAfter:  *uint256.NewInt(0),
		ValidBefore: *uint256.NewInt(uint64(now.Unix()) + 120),
		Nonce:       common.HexToHash("0xf3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480"),
	}
}

func sign(t testing.TB, a x402.Authorization, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	sig, err := x402.Sign(a.Digest(separator), key)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func requirements(price uint64, plan string) x402.Requirements {
	return x402.NewRequirements(sepolia, seller, uint256.NewInt(price), 2*time.Minute, x402.FlowUpfront, plan)
}

func terms() x402.Terms {
	return x402.Terms{
		Network:      sepolia,
		PayTo:        seller,
		Amount:       *uint256.NewInt(10_000),
		MinRemaining: 15 * time.Second,
		MaxValidity:  time.Hour,
	}
}

// payload is a payment as a client would send it, decoded.
func payload(t testing.TB, a x402.Authorization, sig []byte) *x402.Payload {
	t.Helper()
	offer := x402.NewOffer([]x402.Requirements{requirements(10_000, "")},
		x402.ResourceInfo{URL: "https://api.example.com/weather"}, nil, "", resumeKey)
	header, err := x402.EncodeHeader(offer.Required.Pay(offer.Required.Accepts[0], &a, sig))
	if err != nil {
		t.Fatal(err)
	}
	p, err := x402.DecodePayload(header)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// object is JSON that a test can bend.
type object = map[string]any

func wireV2() object {
	return object{
		"x402Version": 2,
		"resource":    object{"url": "https://api.example.com/weather"},
		"accepted": object{
			"scheme": "exact", "network": "eip155:84532", "amount": "10000",
			"asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "payTo": seller.Hex(),
			"maxTimeoutSeconds": 120, "extra": object{"name": "USDC", "version": "2"},
		},
		"payload":    wireExact(),
		"extensions": object{"resume": object{"info": object{"key": resumeKey}}},
	}
}

func wireV1() object {
	return object{"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": wireExact()}
}

func wireExact() object {
	return object{
		"signature": "0x" + strings.Repeat("11", 64) + "1b",
		"authorization": object{
			"from": payer.Hex(), "to": seller.Hex(), "value": "10000", "validAfter": "0",
			"validBefore": "1800000120", "nonce": "0x" + strings.Repeat("ab", 32),
		},
	}
}

// with changes the member at a path such as "payload.authorization.value"; nil removes it.
func with(o object, path string, value any) object {
	o = maps.Clone(o)
	name, rest, nested := strings.Cut(path, ".")
	switch {
	case nested:
		o[name] = with(o[name].(object), rest, value)
	case value == nil:
		delete(o, name)
	default:
		o[name] = value
	}
	return o
}

func header(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}
