package redis

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// partitions is into how many parts payments are cut; all of a part is on one server.
const partitions = 64

const idPrefix = "pay_"

// alphabet are the characters of ids, in the order of their bytes.
const alphabet = "234567abcdefghijklmnopqrstuvwxyz"

// partitionOf is the part that the payment id is in: the upper 6 of the 10 bits of its shard, taken so that
// the order of ids is the order of parts. ok is false for what can be no id.
func partitionOf(id string) (part int, ok bool) {
	shard, ok := ledger.ShardOf(id)
	if !ok {
		return 0, false
	}
	high, low := strings.IndexByte(alphabet, shard[0]), strings.IndexByte(alphabet, shard[1])
	if high < 0 || low < 0 {
		return 0, false
	}
	return (high<<5 | low) >> 4, true
}

// partitionOfPayer is where all payments of payer are.
func partitionOfPayer(payer common.Address) int {
	part, _ := partitionOf(idPrefix + ledger.Shard(payer) + "a")
	return part
}

// keys names things. The number in braces is the hash tag that Redis Cluster distributes by.
type keys struct{ prefix string }

func (k keys) part(part int, name string) string {
	return k.prefix + ":{" + strconv.Itoa(part) + "}:" + name
}

// What a part has beside its payments.
const (
	floorKey  = "f"  // no entry may be dated at or before this time
	dueKey    = "d"  // open payments that nobody holds, by when to look at them
	heldKey   = "h"  // open payments that somebody holds, by when the hold ends
	logKey    = "e"  // audit entries by time; the index of the lists e0, e1, …
	markedKey = "m"  // payments for which a transaction is being recorded, or was left half recorded
	bornKey   = "n"  // counts payments made and forgotten
	importKey = "i"  // there while the ledger is being copied into
	expiryKey = "rx" // reservations by when they expire
	usedUpKey = "qx" // allowances by when they expire
	pingKey   = "ping"

	overdueKey = "ox" // objects by when they expire
	kindsKey   = "ok" // the kinds of objects that there are
)

func (k keys) payment(part int, id string) string { return k.part(part, "p:") + short(id) }

func (k keys) paymentPrefix(part int) string { return k.part(part, "p:") }

// short is an id as it is kept.
func short(id string) string { return strings.TrimPrefix(id, idPrefix) }

func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	// 160 bits: nobody finds two authorizations with one key.
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:20])
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (k keys) authorization(id x402.AuthorizationID) string {
	return k.part(partitionOfPayer(id.Payer), "a:") + digest(number(id.ChainID), id.Asset[:], id.Payer[:], id.Nonce[:])
}

// unserved names the list of the payments like p that were not served.
func (k keys) unserved(p *ledger.Payment) string {
	b := &p.Binding
	return k.part(partitionOfPayer(p.Payer), "u:") + digest(p.Payer[:], number(p.ChainID), p.Asset[:], p.Amount.Bytes(),
		[]byte(b.Route), []byte(b.Plan), []byte(b.Host))
}

func (k keys) plans(payer common.Address, route, host string) string {
	return k.part(partitionOfPayer(payer), "l:") + digest(payer[:], []byte(route), []byte(host))
}

func (k keys) payer(payer common.Address) string {
	return k.part(partitionOfPayer(payer), "y:") + base64.RawURLEncoding.EncodeToString(payer[:])
}

// states are numbered by their place here: never reorder.
var states = []ledger.State{
	ledger.StatePending, ledger.StateSettling, ledger.StatePaid, ledger.StateDelivered, ledger.StateOwed, ledger.StateFailed,
	ledger.StateVoid, ledger.StateExpired, ledger.StateCancelled, ledger.StateRefundPending, ledger.StateRefunded,
	ledger.StateRefundFailed, ledger.StateSettled, ledger.StateRefund,
}

func (k keys) state(part int, state ledger.State) string { return k.part(part, "s:") + string(state) }

func (k keys) reservation(key common.Hash) (part int, name string) {
	part = int(key[0] >> 2)
	return part, k.part(part, "r:") + string(key[:])
}

func (k keys) allowance(key common.Hash) (part int, name string) {
	part = int(key[0] >> 2)
	return part, k.part(part, "q:") + string(key[:])
}

// wallet is a hash: the next nonce (n), each transaction by its hash (t), the hashes that were
// recorded with a nonce (u), the payments of a transaction that were forgotten (g).
func (k keys) wallet(chain uint64, wallet common.Address) string {
	return fmt.Sprintf("%s:{w:%d:%s}", k.prefix, chain, strings.ToLower(wallet.Hex()[2:]))
}

// freed is a list of the hashes of a wallet's transactions that carry no payment.
func (k keys) freed(wallet string) string { return wallet + ":0" }

// aborted is there for an attempt to record that was given up by another.
func (k keys) aborted(wallet, attempt string) string { return wallet + ":x:" + attempt }

func (k keys) anchors() string { return k.prefix + ":{a}:anchors" }
func (k keys) wallets() string { return k.prefix + ":{a}:wallets" }
func (k keys) meta() string    { return k.prefix + ":{a}:meta" }
