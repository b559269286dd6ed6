package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

func hash(n byte) common.Hash { return common.Hash{31: n} }

func account(n byte) common.Address { return common.Address{19: n} }

// sold is a sale of the payer, with its authorization n, that was answered with status by the transaction tx.
func sold(payer, n byte, status int, tx byte, why string) sale {
	return sale{payer: account(payer), nonce: hash(n), sent: time.Unix(1, 0), status: status, tx: hash(tx), why: why}
}

func moved(payer, n, tx byte) transfer { return transfer{account(payer), hash(n), hash(tx)} }

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		sales      []sale
		chain      record
		resumed    int
		unanswered string // what the clients were told instead of a 200
		wrong      string // a part of what is wrong
	}{
		"nothing": {},
		"paid and answered": {
			sales: []sale{sold(1, 1, 200, 9, ""), sold(2, 1, 200, 9, "")},
			chain: record{transfers: []transfer{moved(1, 1, 9), moved(2, 1, 9)}},
		},
		"neither":                 {sales: []sale{sold(1, 1, 402, 0, "402 refused")}},
		"answered and not paid":   {sales: []sale{sold(1, 1, 200, 9, "")}, wrong: "moved no money"},
		"paid by somebody else":   {sales: []sale{sold(1, 1, 200, 9, ""), sold(2, 2, 503, 0, "503")}, chain: record{transfers: []transfer{moved(2, 2, 9)}}, unanswered: "503", wrong: "moved no money"},
		"another transaction":     {sales: []sale{sold(1, 1, 200, 8, "")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, wrong: "names"},
		"no transaction said":     {sales: []sale{sold(1, 1, 200, 0, "")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}},
		"paid and not known":      {sales: []sale{sold(1, 1, 503, 0, "503 pending")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, unanswered: "503 pending"},
		"paid and no answer":      {sales: []sale{sold(1, 1, 0, 0, "no answer in time")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, unanswered: "no answer in time"},
		"paid and refused":        {sales: []sale{sold(1, 1, 402, 0, "402 failed")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, wrong: "moved money all the same"},
		"paid twice":              {sales: []sale{sold(1, 1, 200, 9, "")}, chain: record{transfers: []transfer{moved(1, 1, 9), moved(1, 1, 9)}}, wrong: "twice"},
		"not asked for":           {chain: record{transfers: []transfer{moved(1, 1, 9)}}, wrong: "not asked for"},
		"never sent, and paid":    {sales: []sale{{payer: account(1), nonce: hash(1)}}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, wrong: "not asked for"},
		"another transfer":        {chain: record{strays: 1}, wrong: "not what a price was signed for"},
		"served by an earlier":    {sales: []sale{sold(1, 1, 503, 0, "503"), sold(1, 2, 200, 9, "")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, resumed: 1},
		"an earlier serves once":  {sales: []sale{sold(1, 1, 503, 0, "503"), sold(1, 2, 200, 9, ""), sold(1, 3, 200, 9, "")}, chain: record{transfers: []transfer{moved(1, 1, 9)}}, resumed: 1, wrong: "moved no money"},
		"an earlier of another's": {sales: []sale{sold(2, 1, 503, 0, "503"), sold(1, 2, 200, 9, "")}, chain: record{transfers: []transfer{moved(2, 1, 9)}}, unanswered: "503", wrong: "moved no money"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			v := judge(tc.sales, &tc.chain)
			if v.Resumed != tc.resumed || v.Transfers != len(tc.chain.transfers) {
				t.Errorf("resumed %d, transfers %d", v.Resumed, v.Transfers)
			}
			if n := len(v.Unanswered); (tc.unanswered == "") != (n == 0) || tc.unanswered != "" && v.Unanswered[tc.unanswered] != 1 {
				t.Errorf("not answered: %v, want %q", v.Unanswered, tc.unanswered)
			}
			if got := strings.Join(v.Wrong, "\n"); (tc.wrong == "") != (got == "") || !strings.Contains(got, tc.wrong) {
				t.Errorf("wrong: %q, want %q", got, tc.wrong)
			}
		})
	}
}

// Of the chain's logs only a Transfer of the price to the seller right behind its AuthorizationUsed is a payment.
func TestPayments(t *testing.T) {
	used := func(payer, n byte, tx, index uint) types.Log {
		return types.Log{
			Topics: []common.Hash{x402.TopicAuthorizationUsed, common.BytesToHash(account(payer).Bytes()), hash(n)},
			TxHash: hash(byte(tx)), Index: index,
		}
	}
	moved := func(payer byte, to common.Address, units uint64, tx, index uint) types.Log {
		value := uint256.NewInt(units).Bytes32()
		return types.Log{
			Topics: []common.Hash{x402.TopicTransfer, common.BytesToHash(account(payer).Bytes()), common.BytesToHash(to.Bytes())},
			Data:   value[:], TxHash: hash(byte(tx)), Index: index,
		}
	}
	tests := map[string]struct {
		logs          []types.Log
		found, strays int
	}{
		"two in one transaction":      {logs: []types.Log{used(1, 1, 9, 0), moved(1, payTo, price, 9, 1), used(2, 1, 9, 2), moved(2, payTo, price, 9, 3)}, found: 2},
		"to somebody else":            {logs: []types.Log{used(1, 1, 9, 0), moved(1, account(7), price, 9, 1)}},
		"another amount":              {logs: []types.Log{used(1, 1, 9, 0), moved(1, payTo, price+1, 9, 1)}, strays: 1},
		"without an authorization":    {logs: []types.Log{moved(1, payTo, price, 9, 1)}, strays: 1},
		"another's authorization":     {logs: []types.Log{used(2, 1, 9, 0), moved(1, payTo, price, 9, 1)}, strays: 1},
		"not right behind":            {logs: []types.Log{used(1, 1, 9, 0), moved(1, payTo, price, 9, 2)}, strays: 1},
		"of another transaction":      {logs: []types.Log{used(1, 1, 8, 0), moved(1, payTo, price, 9, 1)}, strays: 1},
		"one authorization, two ways": {logs: []types.Log{used(1, 1, 9, 0), moved(1, payTo, price, 9, 1), moved(1, payTo, price, 9, 2)}, found: 1, strays: 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if found, strays := payments(tc.logs); len(found) != tc.found || strays != tc.strays {
				t.Errorf("found %d and %d strays, want %d and %d", len(found), strays, tc.found, tc.strays)
			}
		})
	}
}
