package settlementtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
)

// Fault is what a Proxy does to one request instead of passing it on.
type Fault struct {
	// Status, if not 0, is the HTTP status that is answered; the node hears nothing.
	Status int
	// Message, if not empty, is a JSON-RPC error that is answered to each query; the node hears nothing.
	Message string
	// Code of that error; -32000 if 0.
	Code int
	// Delay holds the request back before anything else happens, or until the client has gone.
	Delay time.Duration
	// DropAnswer lets the node act, and cuts the connection instead of answering.
	DropAnswer bool
	// Frozen, if not 0, is the newest block that the endpoint knows for this request.
	Frozen uint64
}

// Proxy stands in front of a JSON-RPC endpoint and makes it misbehave as endpoints do.
type Proxy struct {
	server *httptest.Server
	client *http.Client

	mu       sync.Mutex
	upstream string
	fault    func(methods []string) Fault
	refuse   func(method, params string) string
	frozen   uint64
	counts   map[string]int
	requests int
}

// NewProxy starts a proxy in front of the endpoint upstream; it ends with the test.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	p := &Proxy{upstream: upstream, counts: make(map[string]int), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
		p.client.CloseIdleConnections()
	})
	return p
}

// URL is where the proxy listens.
func (p *Proxy) URL() string { return p.server.URL }

// SetFault says what happens to the requests from now on, by the methods in their batch; nil: nothing.
func (p *Proxy) SetFault(f func(methods []string) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// FailAll answers every request with an HTTP status; 0 ends that.
func (p *Proxy) FailAll(status int) {
	p.SetFault(func([]string) Fault { return Fault{Status: status} })
}

// FailOn applies a fault to the requests that hold method.
func (p *Proxy) FailOn(method string, f Fault) {
	p.SetFault(func(methods []string) Fault {
		if slices.Contains(methods, method) {
			return f
		}
		return Fault{}
	})
}

// Refuse answers single queries of a batch with a JSON-RPC error, where f gives its text; params are JSON. The node
// does hear them.
func (p *Proxy) Refuse(f func(method, params string) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = f
}

// Freeze makes the endpoint lag: it knows no block above number, which is not 0, until Thaw.
func (p *Proxy) Freeze(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = number
}

// Thaw ends Freeze.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = 0
}

// Count is how many queries for method came so far.
func (p *Proxy) Count(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[method]
}

// Requests is how many HTTP requests came so far.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
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

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	queries, single, err := decode(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f := p.note(queries)
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case f.Status != 0:
		http.Error(w, "the endpoint "+r.Host+r.URL.String()+" is out of order", f.Status)
		return
	case f.Message != "":
		answer(w, refusals(queries, f), single)
		return
	}
	answers, err := p.forward(queries, f.Frozen)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if f.DropAnswer {
		panic(http.ErrAbortHandler)
	}
	answer(w, answers, single)
}

func decode(body []byte) (queries []message, single bool, err error) {
	if single = len(body) > 0 && body[0] == '{'; single {
		queries = make([]message, 1)
		err = json.Unmarshal(body, &queries[0])
		return queries, true, err
	}
	err = json.Unmarshal(body, &queries)
	return queries, false, err
}

// note counts the queries and gives what happens to them.
func (p *Proxy) note(queries []message) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	methods := make([]string, len(queries))
	for i, q := range queries {
		methods[i] = q.Method
		p.counts[q.Method]++
	}
	var f Fault
	if p.fault != nil {
		f = p.fault(methods)
	}
	if p.frozen != 0 {
		f.Frozen = p.frozen
	}
	return f
}

func refusals(queries []message, f Fault) []message {
	if f.Code == 0 {
		f.Code = -32000
	}
	answers := make([]message, len(queries))
	for i, q := range queries {
		e := fmt.Sprintf(`{"code":%d,"message":%s}`, f.Code, strconv.Quote(f.Message))
		answers[i] = message{Version: "2.0", ID: q.ID, Error: json.RawMessage(e)}
	}
	return answers
}

func answer(w http.ResponseWriter, answers []message, single bool) {
	w.Header().Set("Content-Type", "application/json")
	var v any = answers
	if single {
		v = answers[0]
	}
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

// forward asks the node. A frozen proxy asks for its own block instead of the latest, and knows nothing later.
func (p *Proxy) forward(queries []message, frozen uint64) ([]message, error) {
	if frozen != 0 {
		for i := range queries {
			freezeQuery(&queries[i], frozen)
		}
	}
	body, err := json.Marshal(queries)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	upstream, refuse := p.upstream, p.refuse
	p.mu.Unlock()
	// Not the client's context: what the node was given, it does, whether or not anybody waits.
	req, err := http.NewRequest(http.MethodPost, upstream, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answers []message
	if err := json.NewDecoder(resp.Body).Decode(&answers); err != nil {
		return nil, err
	}
	for i := range answers {
		at := slices.IndexFunc(queries, func(q message) bool { return bytes.Equal(q.ID, answers[i].ID) })
		if at < 0 {
			continue
		}
		if frozen != 0 {
			freezeAnswer(queries[at].Method, &answers[i], frozen)
		}
		if refuse != nil {
			refuseAnswer(queries[at], &answers[i], refuse)
		}
	}
	return answers, nil
}

func refuseAnswer(q message, a *message, refuse func(method, params string) string) {
	params, err := json.Marshal(q.Params)
	if err != nil {
		return
	}
	if text := refuse(q.Method, string(params)); text != "" {
		*a = refusals([]message{q}, Fault{Message: text})[0]
	}
}

// newest are the words for blocks that a lagging node takes for its own head.
var newest = []string{`"latest"`, `"pending"`, `"safe"`, `"finalized"`}

func freezeQuery(q *message, number uint64) {
	frozen := json.RawMessage(strconv.Quote(hexutil.EncodeUint64(number)))
	for i, param := range q.Params {
		if slices.Contains(newest, string(param)) {
			q.Params[i] = frozen
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
			filter[end] = frozen
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
