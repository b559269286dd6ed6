package facilitator

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

var payer = common.HexToAddress("0x00000000000000000000000000000000000000aa")

func sepolia(t testing.TB) x402.Network {
	t.Helper()
	n, ok := x402.LookupNetwork("base-sepolia")
	if !ok {
		t.Fatal("base-sepolia is not known")
	}
	return n
}

func readingOf(t testing.TB, verdict string) *reading {
	return &reading{
		clean: func(s string) string { return printable(s, nil) }, network: sepolia(t), payer: payer,
		verdict: verdict, transactional: verdict == "success",
	}
}

const someHash = "0x0101010101010101010101010101010101010101010101010101010101010101"

func TestReply(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		body   string
		kind   kind
		reason x402.Reason
	}{
		{"settled", 200, `{"success":true,"transaction":"` + someHash + `","network":"eip155:84532","payer":"0x00000000000000000000000000000000000000AA"}`, accepted, ""},
		{"settled, version 1", 200, `{"success":true,"transaction":"` + someHash + `","network":"base-sepolia"}`, accepted, ""},
		{"settled, empty strings", 200, `{"success":true,"transaction":"` + someHash + `","network":"","payer":""}`, accepted, ""},
		{"settled, nulls", 201, `{"success":true,"transaction":"` + someHash + `","network":null,"payer":null,"errorReason":null}`, accepted, ""},
		{"refused with 200", 200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`, refused, "insufficient_funds"},
		{"refused with 400", 400, `{"success":false,"errorReason":"invalid_signature"}`, refused, "invalid_signature"},
		{"refused with 500", 500, `{"success":false,"errorReason":"unexpected_settle_error"}`, refused, "unexpected_settle_error"},
		{"refused without a reason", 200, `{"success":false}`, refused, ""},
		{"refused with a text for a reason", 200, `{"success":false,"errorReason":"No <b>money</b>"}`, refused, ""},
		{"pending", 200, `{"success":false,"errorReason":"settlement_pending","transaction":"` + someHash + `"}`, pending, "settlement_pending"},
		{"pending with 502", 502, `{"success":false,"errorReason":"settlement_pending","transaction":"` + someHash + `"}`, pending, "settlement_pending"},
		{"pending without a transaction", 200, `{"success":false,"errorReason":"settlement_pending","transaction":""}`, lost, "settlement_pending"},
		{"reverted", 200, `{"success":false,"errorReason":"invalid_transaction_state","transaction":"` + someHash + `"}`, pending, "invalid_transaction_state"},
		{"no receipt", 400, `{"success":false,"errorReason":"invalid_exact_evm_failed_to_get_receipt"}`, lost, "invalid_exact_evm_failed_to_get_receipt"},
		{"settled, without a transaction", 200, `{"success":true,"transaction":"","network":"eip155:84532"}`, lost, ""},
		{"settled, with half a transaction", 200, `{"success":true,"transaction":"0x01","network":"eip155:84532"}`, lost, ""},
		{"settled on another network", 200, `{"success":true,"transaction":"` + someHash + `","network":"eip155:8453"}`, lost, ""},
		{"settled for another payer", 200, `{"success":true,"transaction":"` + someHash + `","network":"eip155:84532","payer":"0x00000000000000000000000000000000000000bb"}`, lost, ""},
		{"settled with 500", 500, `{"success":true,"transaction":"` + someHash + `"}`, lost, ""},
		{"a truth that is none", 200, `{"success":"true","transaction":"` + someHash + `"}`, lost, ""},
		{"null", 200, `{"success":null}`, lost, ""},
		{"another letter case", 200, `{"Success":true,"transaction":"` + someHash + `"}`, lost, ""},
		{"the last of two counts", 200, `{"success":true,"success":false}`, refused, ""},
		{"not an object", 200, `true`, lost, ""},
		{"a page", 200, `<html>`, lost, ""},
		{"nothing", 204, ``, lost, ""},
		{"declined", 403, `{"error":"forbidden"}`, refused, ""},
		{"too many", 429, `slow down`, refused, ""},
		{"redirect", 302, ``, refused, ""},
		{"timeout", 408, ``, lost, ""},
		{"conflict", 409, `{"error":"in progress"}`, lost, ""},
		{"gateway", 504, `{"error":"timeout"}`, lost, ""},
	} {
		got := readingOf(t, "success").read(answer{status: tc.status, body: []byte(tc.body)})
		if got.kind != tc.kind || got.reason != tc.reason {
			t.Errorf("%s: kind %d, reason %q, want %d and %q", tc.name, got.kind, got.reason, tc.kind, tc.reason)
		}
		if got.kind != accepted && got.err == nil {
			t.Errorf("%s: nobody is told why", tc.name)
		}
		if hasHash := strings.Contains(tc.body, someHash); got.spoke && hasHash != (got.transaction != common.Hash{}) {
			t.Errorf("%s: transaction %s", tc.name, got.transaction)
		}
	}
	for body, want := range map[string]kind{
		`{"isValid":true,"payer":"0x00000000000000000000000000000000000000aa"}`: accepted,
		`{"isValid":true}`: accepted,
		`{"isValid":false,"invalidReason":"bad_luck"}`:      refused,
		`{"success":true,"transaction":"` + someHash + `"}`: lost,
	} {
		if got := readingOf(t, "isValid").read(answer{status: 200, body: []byte(body)}); got.kind != want {
			t.Errorf("%s: kind %d, want %d", body, got.kind, want)
		}
	}
}

// Whatever a facilitator sends: a success needs the word, a 2xx and a transaction; and what gets into logs is short,
// printable, and has no long run of what could be a key.
func FuzzReply(f *testing.F) {
	f.Add(200, []byte(`{"success":true,"transaction":"`+someHash+`"}`))
	f.Add(400, []byte(`{"success":false,"errorReason":"x","errorMessage":"Bearer abcdefghijklmnopqrstuvwxyz"}`))
	f.Add(500, []byte(`{"success":false,"transaction":"`+someHash+`"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		r := readingOf(t, "success").read(answer{status: status, body: body})
		if r.kind == accepted {
			var v struct {
				Success bool `json:"success"`
			}
			if json.Unmarshal(body, &v) != nil && !json.Valid(body) || status < 200 || status > 299 || r.transaction == (common.Hash{}) {
				t.Fatalf("%d %q is a success", status, body)
			}
			return
		}
		if r.err == nil || len(r.err.Error()) > maxText+100 {
			t.Fatalf("error %v", r.err)
		}
		if longRuns.MatchString(strings.TrimPrefix(r.err.Error(), "refused: ")) {
			t.Fatalf("the log would say %q", r.err)
		}
	})
}

func TestSupportedKinds(t *testing.T) {
	for body, want := range map[string]versions{
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"}]}`:                            {two: true},
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:*"}]}`:                                {two: true},
		`{"kinds":[{"x402Version":1,"scheme":"exact","network":"base-sepolia"}]}`:                            {one: true},
		`{"kinds":[{"x402Version":"2"},7,null,{"x402Version":1,"scheme":"exact","network":"base-sepolia"}]}`: {one: true},
		`{"kinds":[{"x402Version":2,"scheme":"upto","network":"eip155:84532"}]}`:                             {},
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:8453"}]}`:                             {},
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"base-sepolia"}]}`:                            {},
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"*"}]}`:                                       {},
		`{"kinds":[]}`: {},
	} {
		got, err := readSupported([]byte(body), sepolia(t))
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
	for _, body := range []string{``, `[]`, `{}`, `{"kinds":7}`, `<html>`} {
		if _, err := readSupported([]byte(body), sepolia(t)); err == nil {
			t.Errorf("%q is a list of kinds", body)
		}
	}
}
