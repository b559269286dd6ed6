package e2e

import (
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// chainUser is somebody who uses the chain without asking us.
type chainUser struct {
	t       *testing.T
	client  *ethclient.Client
	account devnet.Account
}

func newChainUser(t *testing.T, r *rig.Rig, developer int) *chainUser {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), r.Chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &chainUser{t, client, devnet.Developer(developer)}
}

// send sends a call of the token, with that tip in gwei.
func (u *chainUser) send(data []byte, tip int64) common.Hash {
	u.t.Helper()
	nonce, err := u.client.PendingNonceAt(u.t.Context(), u.account.Address)
	if err != nil {
		u.t.Fatal(err)
	}
	chainID := big.NewInt(devnet.ChainID)
	tx, err := types.SignNewTx(u.account.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, To: &devnet.TokenAddress, Data: data, Gas: 300_000,
		GasTipCap: big.NewInt(tip * params.GWei), GasFeeCap: big.NewInt(1000 * params.GWei),
	})
	if err == nil {
		err = u.client.SendTransaction(u.t.Context(), tx)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	return tx.Hash()
}

// mined waits for a transaction, and gives whether it succeeded.
func (u *chainUser) mined(hash common.Hash) bool {
	u.t.Helper()
	var receipt *types.Receipt
	waitFor(u.t, func() bool {
		var err error
		receipt, err = u.client.TransactionReceipt(u.t.Context(), hash)
		return err == nil
	})
	return receipt.Status == types.ReceiptStatusSuccessful
}

// pendingCalldata waits until a call of the token waits in the pool, and gives its calldata.
func (u *chainUser) pendingCalldata() (data []byte) {
	u.t.Helper()
	waitFor(u.t, func() bool {
		var pool struct {
			Pending map[string]map[string]struct{ Input string }
		}
		if err := u.client.Client().CallContext(u.t.Context(), &pool, "txpool_content"); err != nil {
			u.t.Fatal(err)
		}
		for _, list := range pool.Pending {
			for _, tx := range list {
				data = common.FromHex(tx.Input)
			}
		}
		return data != nil
	})
	return data
}

// cancelCalldata is the call by which a payer takes back an authorization (EIP-3009).
func cancelCalldata(t *testing.T, payer devnet.Account, nonce common.Hash) []byte {
	t.Helper()
	separator := devnet.Network().Domain().Separator()
	message := crypto.Keccak256Hash(
		crypto.Keccak256([]byte("CancelAuthorization(address authorizer,bytes32 nonce)")),
		common.LeftPadBytes(payer.Address[:], 32), nonce[:],
	)
	sig, err := x402.Sign(crypto.Keccak256Hash([]byte{0x19, 0x01}, separator[:], message[:]), payer.Key)
	if err != nil {
		t.Fatal(err)
	}
	data := crypto.Keccak256([]byte("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"))[:4]
	data = append(data, common.LeftPadBytes(payer.Address[:], 32)...)
	data = append(data, nonce[:]...)
	v := sig[64]
	if v < 27 {
		v += 27
	}
	data = append(data, common.LeftPadBytes([]byte{v}, 32)...)
	return append(data, sig[:64]...)
}

// rebuilt are payment headers that a thief makes of calldata: in both versions, with every echo that it can get.
func rebuilt(t *testing.T, thief *rig.Buyer, url string, calldata []byte) map[string][2]string {
	t.Helper()
	a, sig, err := x402.ParseTransferCalldata(calldata)
	if err != nil {
		t.Fatalf("reading calldata: %v", err)
	}
	o := thief.Offer(url)
	bare := o
	bare.Extensions = nil
	return map[string][2]string{
		"version 2, its own echo": {x402.HeaderSignature, rig.Encode(t, o.Pay(o.Accepts[0], &a, sig))},
		"version 2, no echo":      {x402.HeaderSignature, rig.Encode(t, bare.Pay(o.Accepts[0], &a, sig))},
		"version 1": {x402.HeaderPaymentV1, rig.Encode(t, map[string]any{
			"x402Version": 1, "scheme": "exact", "network": devnet.Network().V1Name,
			"payload": x402.ExactPayload{Signature: sig, Authorization: a},
		})},
	}
}

// A signature is public once it is broadcast. Whoever reads it in calldata, while the transaction waits, when it is paid
// and not served, and when it is served, gets nothing, and keeps the payer from nothing.
func TestHeaderRebuiltFromCalldata(t *testing.T) {
	r := rig.New(t, rig.Options{App: "settle_timeout 5s"})
	b, thief, reader := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2), newChainUser(t, r, 5)
	for version, sign := range map[string]func(x402.PaymentRequired) (key, header string){
		"v2": func(o x402.PaymentRequired) (string, string) { return x402.HeaderSignature, b.Sign(o, 0) },
		"v1": func(o x402.PaymentRequired) (string, string) { return x402.HeaderPaymentV1, b.SignV1(o) },
	} {
		w := watch(r)
		url := r.URL("/" + version)
		key, header := sign(b.Offer(url))
		steal := func(when string, calldata []byte, statuses ...int) {
			t.Helper()
			for name, forged := range rebuilt(t, thief, url, calldata) {
				a := thief.Get(url, forged[0], forged[1])
				if a.Err != nil || a.Status == http.StatusOK || a.Status >= 500 && a.Status != http.StatusServiceUnavailable {
					t.Errorf("%s, %s, %s: %d %v %s", version, when, name, a.Status, a.Err, a.Body)
				}
				if a.Header.Get("X-Payment-Id") != "" && forged[1] != header {
					t.Errorf("%s, %s, %s: the thief is told the payment's id", version, when, name)
				}
			}
		}
		r.Chain.Stall()
		leave(t, r, b, http.MethodGet, url, "", key, header)
		calldata := reader.pendingCalldata()
		steal("waiting", calldata)
		w.nothing(t, version+", waiting")
		r.Chain.Resume()
		waitFor(t, func() bool { return r.Earned() == w.earned+cent })
		steal("paid", calldata)
		w.seen(t, version+", paid", 0, cent)

		if version == "v1" { // without an echo, a fresh signature is what tells the payer from a thief
			key, header = sign(b.Offer(url))
		}
		var a rig.Answer
		waitFor(t, func() bool {
			a = b.Get(url, key, header)
			return a.Status != http.StatusServiceUnavailable
		})
		if a.Status != http.StatusOK {
			t.Errorf("%s: the payer itself: %d %s", version, a.Status, a.Body)
		}
		w.seen(t, version+", the payer", 1, 0)
		steal("served", calldata)
		w.nothing(t, version+", served")
	}
}

// Somebody who executes an authorization before we ever saw it has spent it: it is refused, and proves nothing.
func TestExecutedBeforeTheClaim(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b, stranger := rig.NewBuyer(t, 1), newChainUser(t, r, 5)
	url := r.URL("/x")
	o := b.Offer(url)
	a, sig := b.Authorize(o.Accepts[0])
	if !stranger.mined(stranger.send(a.TransferCalldata(sig), 1)) {
		t.Fatal("the stranger's transaction failed")
	}
	w := watch(r)
	for name, forged := range rebuilt(t, b, url, a.TransferCalldata(sig)) {
		refused(t, name, b.Get(url, forged[0], forged[1]), x402.ReasonNonceUsed)
	}
	w.nothing(t, "executed before")
}

// Somebody who executes an authorization while our transaction waits only pays our gas: the payment is credited once, and
// served once.
func TestExecutedAfterTheClaim(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b, stranger := rig.NewBuyer(t, 1), newChainUser(t, r, 5)
	url := r.URL("/x")
	header := b.Sign(b.Offer(url), 0)
	w := watch(r)
	r.Chain.Stall()
	var a rig.Answer
	var wg sync.WaitGroup
	wg.Go(func() { a = b.Get(url, x402.HeaderSignature, header) })
	calldata := stranger.pendingCalldata()
	hash := stranger.send(calldata, 100)
	r.Chain.Resume()
	wg.Wait()
	if !stranger.mined(hash) {
		t.Fatal("the stranger was not faster, so nothing is shown")
	}
	if a.Status != http.StatusOK {
		t.Errorf("the payer: %d %v %s", a.Status, a.Err, a.Body)
	}
	w.seen(t, "front-run", 1, cent)
	refused(t, "a replay", b.Get(url, x402.HeaderSignature, header), x402.ReasonNonceUsed)
	if again, _ := b.Buy(url); again.Status != http.StatusOK {
		t.Errorf("the next purchase: %d %s", again.Status, again.Body)
	}
	w.seen(t, "the next purchase", 1, cent)
}

// A payer that takes back its authorization gets nothing for it: before it pays, and while our transaction waits.
func TestCancelledAuthorization(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b, stranger := rig.NewBuyer(t, 1), newChainUser(t, r, 5)
	url := r.URL("/x")
	o := b.Offer(url)
	a, sig := b.Authorize(o.Accepts[0])
	if !stranger.mined(stranger.send(cancelCalldata(t, b.Account, a.Nonce), 1)) {
		t.Fatal("the cancellation failed")
	}
	w := watch(r)
	refused(t, "cancelled before", b.Get(url, x402.HeaderSignature, rig.Encode(t, o.Pay(o.Accepts[0], &a, sig))), x402.ReasonNonceUsed)
	w.nothing(t, "cancelled before")

	o = b.Offer(url)
	a, sig = b.Authorize(o.Accepts[0])
	header := rig.Encode(t, o.Pay(o.Accepts[0], &a, sig))
	r.Chain.Stall()
	var got rig.Answer
	var wg sync.WaitGroup
	wg.Go(func() { got = b.Get(url, x402.HeaderSignature, header) })
	stranger.pendingCalldata()
	hash := stranger.send(cancelCalldata(t, b.Account, a.Nonce), 100)
	r.Chain.Resume()
	wg.Wait()
	if !stranger.mined(hash) {
		t.Fatal("the cancellation was not faster, so nothing is shown")
	}
	if got.Status != http.StatusPaymentRequired {
		t.Errorf("cancelled while it waited: %d %v %s", got.Status, got.Err, got.Body)
	}
	w.nothing(t, "cancelled while it waited")
	if again, _ := b.Buy(url); again.Status != http.StatusOK {
		t.Errorf("the next purchase: %d %s", again.Status, again.Body)
	}
	w.seen(t, "the next purchase", 1, cent)
}

// A contract wallet pays like anybody; one that burns, lies or bombs is refused and costs us at most one cheap transaction.
func TestContractWallets(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	ctx, url := t.Context(), r.URL("/x")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pay := func(wallet common.Address, end ...byte) rig.Answer {
		t.Helper()
		must(r.Chain.Mint(ctx, wallet, devnet.USDC(1)))
		o := b.Offer(url)
		a, sig := b.Authorize(o.Accepts[0], func(a *x402.Authorization) { a.From = wallet })
		return b.Get(url, x402.HeaderSignature, rig.Encode(t, o.Pay(o.Accepts[0], &a, append(sig, end...))))
	}
	gas := func() *uint256.Int {
		t.Helper()
		wei, err := r.Chain.Balance(ctx, devnet.Developer(0).Address)
		must(err)
		return wei
	}
	good, err := r.Chain.DeployWallet(ctx, b.Account.Address)
	must(err)
	others, err := r.Chain.DeployWallet(ctx, devnet.Payer(7).Address)
	must(err)
	w := watch(r)
	if a := pay(good); a.Status != http.StatusOK || r.Upstream.Last().Header.Get("X-Payment-Payer") != good.Hex() {
		t.Errorf("a good wallet: %d %v %s", a.Status, a.Err, a.Body)
	}
	w.seen(t, "a good wallet", 1, cent)
	refused(t, "somebody else's wallet", pay(others), x402.ReasonSignature)
	refused(t, "a wallet that is not there (ERC-6492)", pay(common.HexToAddress("0x6492"), common.FromHex(strings.Repeat("6492", 16))...),
		x402.ReasonUndeployedWallet)
	w.nothing(t, "wallets that can't sign")

	for name, c := range map[string]struct {
		mode devnet.Mode
		size uint64
		gas  uint64 // that an attempt may cost us
	}{
		"refuses":     {devnet.Refuse, 0, 0},
		"reverts":     {devnet.Revert, 0, 0},
		"burns gas":   {devnet.BurnGas, 0, 0},
		"return bomb": {devnet.ReturnBomb, 1 << 20, 0},
		"revert bomb": {devnet.RevertBomb, 1 << 20, 0},
		"expensive":   {devnet.Expensive, 5_000_000, 0},
		"lies":        {devnet.AcceptInSimulation, 0, 300_000},
	} {
		hostile, err := r.Chain.DeployHostileWallet(ctx, c.mode, c.size)
		must(err)
		before := gas()
		if a := pay(hostile); a.Status != http.StatusPaymentRequired {
			t.Errorf("%s: %d %v %s", name, a.Status, a.Err, a.Body)
		}
		w.nothing(t, name)
		spent := new(uint256.Int).Sub(before, gas())
		if limit := uint256.NewInt(c.gas * 20 * params.GWei); spent.Gt(limit) {
			t.Errorf("%s: it cost %s wei of gas", name, spent.Dec())
		}
	}
	if a, _ := b.Buy(url); a.Status != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.Status, a.Body)
	}
}
