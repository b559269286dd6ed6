package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
)

// rpcFault is a way in which an endpoint misbehaves.
type rpcFault string

const (
	rpcHealthy rpcFault = ""
	rpcError   rpcFault = "rpc answers 5xx or JSON-RPC errors"
	rpcDelay   rpcFault = "rpc is slow"
	rpcDrop    rpcFault = "rpc acts and drops its answer"
	rpcStale   rpcFault = "rpc lags behind"
	rpcMixed   rpcFault = "rpc is now up to date and now behind"
	rpcDown    rpcFault = "rpc refuses everybody"
)

// endpoint stands in front of the chain's JSON-RPC, one for each instance, as a provider's load balancer would.
type endpoint struct {
	server *httptest.Server
	client *http.Client
	node   string

	mu     sync.Mutex
	random *rand.Rand
	fault  rpcFault
	frozen uint64
}

func newEndpoint(t *testing.T, node string, random *rand.Rand) *endpoint {
	e := &endpoint{node: node, random: random, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
	e.server = httptest.NewServer(e)
	t.Cleanup(func() {
		e.server.CloseClientConnections()
		e.server.Close()
		e.client.CloseIdleConnections()
	})
	return e
}

// set makes the endpoint misbehave; behind is the block that a stale one knows as the newest.
func (e *endpoint) set(f rpcFault, behind uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault, e.frozen = f, behind
}

// mishap is what happens to one request.
type mishap struct {
	status  int
	message string
	delay   time.Duration
	drop    bool
	frozen  uint64 // the newest block that is told of; 0: all
}

func (e *endpoint) mishap() mishap {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch n := e.random.IntN(100); e.fault {
	case rpcError:
		switch {
		case n < 40:
			return mishap{status: http.StatusBadGateway}
		case n < 50:
			return mishap{status: http.StatusTooManyRequests}
		case n < 80:
			return mishap{message: "internal error"}
		}
	case rpcDelay:
		return mishap{delay: time.Duration(100+e.random.IntN(4000)) * time.Millisecond}
	case rpcDrop:
		return mishap{drop: n < 60}
	case rpcStale:
		return mishap{frozen: e.frozen}
	case rpcMixed:
		if n < 50 {
			return mishap{frozen: e.frozen}
		}
	case rpcDown:
		return mishap{status: http.StatusServiceUnavailable}
	}
	return mishap{}
}

// message is a JSON-RPC request or answer.
type message struct {
	Version string            `json:"jsonrpc"`
	ID      json.RawMessage   `json:"id"`
	Method  string            `json:"method,omitempty"`
	Params  []json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage   `json:"result,omitempty"`
	Error   json.RawMessage   `json:"error,omitempty"`
}

// ServeHTTP passes a request on, or not.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	m := e.mishap()
	if m.delay > 0 {
		select {
		case <-time.After(m.delay):
		case <-r.Context().Done():
			return
		}
	}
	queries, single, err := decodeQueries(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if m.status != 0 {
		http.Error(w, "out of order", m.status)
		return
	}
	answers := refuseAll(queries, m.message)
	if m.message == "" {
		if answers, err = e.forward(queries, m.frozen); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	if m.drop {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	var v any = answers
	if single {
		v = answers[0]
	}
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

func decodeQueries(body []byte) (queries []message, single bool, err error) {
	if single = len(body) > 0 && body[0] == '{'; single {
		queries = make([]message, 1)
		return queries, true, json.Unmarshal(body, &queries[0])
	}
	err = json.Unmarshal(body, &queries)
	return queries, false, err
}

func refuseAll(queries []message, text string) []message {
	answers := make([]message, len(queries))
	for i, q := range queries {
		answers[i] = message{Version: "2.0", ID: q.ID, Error: fmt.Appendf(nil, `{"code":-32000,"message":%q}`, text)}
	}
	return answers
}

// forward asks the node, whether or not anybody still waits: what it was given, it does. A stale endpoint gives what its node knew
// at the block frozen, in all its answers.
func (e *endpoint) forward(queries []message, frozen uint64) ([]message, error) {
	if frozen != 0 {
		for i := range queries {
			freezeQuery(&queries[i], frozen)
		}
	}
	body, err := json.Marshal(queries)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Post(e.node, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answers []message
	if err := json.NewDecoder(resp.Body).Decode(&answers); err != nil {
		return nil, err
	}
	if frozen != 0 {
		for i := range answers {
			if at := slices.IndexFunc(queries, func(q message) bool { return bytes.Equal(q.ID, answers[i].ID) }); at >= 0 {
				freezeAnswer(queries[at].Method, &answers[i], frozen)
			}
		}
	}
	return answers, nil
}

// newest are the words for blocks that a lagging node takes for its own head.
var newest = []string{`"latest"`, `"pending"`, `"safe"`, `"finalized"`}

func freezeQuery(q *message, number uint64) {
	block := hexutil.EncodeUint64(number)
	for i, param := range q.Params {
		if slices.Contains(newest, string(param)) {
			q.Params[i] = json.RawMessage(strconv.Quote(block))
		}
	}
	if q.Method != "eth_getLogs" || len(q.Params) == 0 {
		return
	}
	var filter map[string]json.RawMessage
	if json.Unmarshal(q.Params[0], &filter) != nil {
		return
	}
	for _, end := range []string{"fromBlock", "toBlock"} {
		var n hexutil.Uint64
		if raw, ok := filter[end]; ok && (json.Unmarshal(raw, &n) != nil || uint64(n) > number) {
			filter[end] = json.RawMessage(strconv.Quote(block))
		}
	}
	if raw, err := json.Marshal(filter); err == nil {
		q.Params[0] = raw
	}
}

func freezeAnswer(method string, a *message, number uint64) {
	switch method {
	case "eth_blockNumber":
		a.Result = json.RawMessage(strconv.Quote(hexutil.EncodeUint64(number)))
	case "eth_getTransactionReceipt":
		var v struct {
			Block hexutil.Uint64 `json:"blockNumber"`
		}
		if json.Unmarshal(a.Result, &v) == nil && uint64(v.Block) > number {
			a.Result = json.RawMessage("null")
		}
	}
}
