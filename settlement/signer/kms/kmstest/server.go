package kmstest

import (
	"crypto/ecdsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// What the server knows from the start. The credentials are what AWS' own documentation uses in its examples.
const (
	Region          = "eu-central-1"
	Account         = "111122223333"
	AccessKeyID     = "AKIAIOSFODNN7EXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	// KeyID is the id of the key that New was given; Alias leads to it.
	KeyID = "1234abcd-12ab-34cd-56ef-1234567890ab"
	Alias = "alias/gas"
)

// ARN is the name that the service gives to the key with that id.
func ARN(id string) string { return "arn:aws:kms:" + Region + ":" + Account + ":key/" + id }

// Key is a key of the service.
type Key struct {
	// Private makes the signatures.
	Private *ecdsa.PrivateKey
	// Spec and Usage are ECC_SECG_P256K1 and SIGN_VERIFY by default.
	Spec, Usage string
	// Public is what is said to be the public key, if it is not Private's.
	Public []byte
	// State is "Enabled" by default; "Disabled" and "PendingDeletion" refuse everything.
	State string
	// Denied are the operations that the policy does not allow, such as "Sign".
	Denied []string
	// S says which of the two s is answered.
	S S
}

// S says which s signatures have.
type S int

// By default the digest decides, so that a series has both.
const (
	EitherS S = iota
	LowS
	HighS
)

// Request is what the server was asked.
type Request struct {
	// Op is "Sign" or "GetPublicKey".
	Op string
	// N counts the requests of that Op, from 0.
	N      int
	Header http.Header
	// In is the body.
	In Input
}

// Input is the body of a request of either kind.
type Input struct {
	KeyID            string `json:"KeyId"`
	Message          []byte `json:"Message"`
	MessageType      string `json:"MessageType"`
	SigningAlgorithm string `json:"SigningAlgorithm"`
	DryRun           bool   `json:"DryRun"`
}

// Fault is what becomes of a request instead of its answer.
type Fault struct {
	// Status, with Error and Text as the service writes its errors, or with Body as it is.
	Status      int
	Error, Text string
	Body        []byte
	// Hang: there is no answer until the client has left, or the server is closed.
	Hang bool
	// Drop: the connection is closed instead of an answer.
	Drop bool
	// Location is where a redirect leads.
	Location string
}

// Server is the fake.
type Server struct {
	server *httptest.Server
	closed chan struct{}

	mu       sync.Mutex
	token    string
	keys     map[string]*Key   // by id
	aliases  map[string]string // to ids
	fault    func(Request) *Fault
	requests []Request
	hits     int
}

// New starts a server that has key as KeyID, and ends it with the test.
func New(t testing.TB, key *ecdsa.PrivateKey) *Server {
	t.Helper()
	s := &Server{
		closed: make(chan struct{}), keys: map[string]*Key{KeyID: {Private: key}}, aliases: map[string]string{Alias: KeyID},
	}
	s.server = httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.closed)
		s.server.Close()
	})
	return s
}

// URL is the server's address.
func (s *Server) URL() string { return s.server.URL }

// SetKey adds or replaces a key.
func (s *Server) SetKey(id string, k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id] = &k
}

// SetAlias lets an alias lead to a key.
func (s *Server) SetAlias(alias, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliases[alias] = id
}

// SetSessionToken is what requests must have from now on.
func (s *Server) SetSessionToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// SetFault asks f what becomes of each request from now on; nil is the answer, and a nil f ends it.
func (s *Server) SetFault(f func(Request) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests are all that can be read, those with faults among them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Hits is how many HTTP requests there were, those that make no sense among them.
func (s *Server) Hits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

// Count is how often there was a request of that operation.
func (s *Server) Count(op string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Op == op {
			n++
		}
	}
	return n
}

const target = "TrentService."

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.hits++
	s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the client has left
	}
	op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), target)
	if r.Method != http.MethodPost || r.URL.Path != "/" || !ok || r.Header.Get("Content-Type") != mimeType {
		refuse(w, http.StatusBadRequest, "UnknownOperationException", "")
		return
	}
	var in Input
	if err := json.Unmarshal(body, &in); err != nil {
		refuse(w, http.StatusBadRequest, "SerializationException", "")
		return
	}
	req, f := s.record(Request{Op: op, Header: r.Header.Clone(), In: in})
	if f != nil {
		s.fail(w, r, *f)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.authenticate(r, body); refused != nil {
		refused.write(w)
		return
	}
	answer, refused := s.answer(req)
	if refused != nil {
		refused.write(w)
		return
	}
	write(w, http.StatusOK, answer)
}

// record counts a request, and gives what it has coming.
func (s *Server) record(r Request) (Request, *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, before := range s.requests {
		if before.Op == r.Op {
			r.N++
		}
	}
	s.requests = append(s.requests, r)
	if s.fault == nil {
		return r, nil
	}
	return r, s.fault(r)
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, f Fault) {
	switch {
	case f.Hang:
		select {
		case <-r.Context().Done():
		case <-s.closed:
		}
		panic(http.ErrAbortHandler) // closes the connection
	case f.Drop:
		panic(http.ErrAbortHandler) // closes the connection
	case f.Error != "":
		refuse(w, f.Status, f.Error, f.Text)
	default:
		if f.Location != "" {
			w.Header().Set("Location", f.Location)
		}
		w.WriteHeader(f.Status)
		_, _ = w.Write(f.Body)
	}
}
