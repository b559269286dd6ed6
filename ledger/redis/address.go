package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ErrAddress: an address of Redis can't be understood. The error never quotes a password.
var ErrAddress = errors.New("ledger/redis: the address is not valid")

type kind int

const (
	singleKind kind = iota
	sentinelKind
	clusterKind
)

// address is what a URL says. See Open for its forms.
type address struct {
	kind               kind
	hosts              []string
	master             string
	username, password string
	db                 int
	client             string
	tls                *tls.Config

	sentinelUsername, sentinelPassword string

	// rest is the URL without its secrets.
	rest string
}

// Redacted is the URL as it may be shown: without passwords, and, where it can't be understood, without anything.
func Redacted(rawURL string) string {
	a, _, err := parseAddress(rawURL)
	if err != nil {
		return "redis://(not a valid address)"
	}
	return a.rest
}

// Local reports whether all servers that the URL names are on this machine.
func Local(rawURL string) bool {
	a, _, err := parseAddress(rawURL)
	if err != nil {
		return false
	}
	for _, h := range a.hosts {
		host, _, _ := net.SplitHostPort(h)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// HasPassword reports whether the URL carries a password.
func HasPassword(rawURL string) bool {
	a, _, err := parseAddress(rawURL)
	return err != nil && strings.Contains(rawURL, "@") || err == nil && (a.password != "" || a.sentinelPassword != "")
}

// parseAddress reads a URL; the options are for files that are not read yet.
func parseAddress(rawURL string) (*address, url.Values, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, nil, fmt.Errorf("%w: it must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://", ErrAddress)
	}
	a := &address{}
	base, variant, _ := strings.Cut(scheme, "+")
	if base == "rediss" {
		a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	switch {
	case base != "redis" && base != "rediss":
		return nil, nil, fmt.Errorf("%w: it must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://", ErrAddress)
	case scheme == base:
	case variant == "sentinel":
		a.kind = sentinelKind
	case variant == "cluster":
		a.kind = clusterKind
	default:
		return nil, nil, fmt.Errorf("%w: it must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://", ErrAddress)
	}
	// Not by net/url: it knows no list of hosts.
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		if err := a.user(authority[:i]); err != nil {
			return nil, nil, err
		}
		authority = authority[i+1:]
	}
	if err := a.servers(authority); err != nil {
		return nil, nil, err
	}
	if err := a.place(path); err != nil {
		return nil, nil, err
	}
	options, err := a.options(query)
	if err != nil {
		return nil, nil, err
	}
	a.rest = a.shown(scheme, options)
	return a, options, nil
}

func (a *address) user(info string) error {
	name, password, _ := strings.Cut(info, ":")
	var err, err2 error
	a.username, err = url.PathUnescape(name)
	a.password, err2 = url.PathUnescape(password)
	if err != nil || err2 != nil {
		return fmt.Errorf("%w: special characters of a password must be percent-encoded", ErrAddress)
	}
	return nil
}

func (a *address) servers(list string) error {
	port := "6379"
	if a.kind == sentinelKind {
		port = "26379"
	}
	for _, h := range strings.Split(list, ",") {
		host, p, err := net.SplitHostPort(h)
		if err != nil {
			host, p = strings.Trim(h, "[]"), port
		}
		if n, err := strconv.ParseUint(p, 10, 16); host == "" || strings.ContainsAny(host, "[]@ \t\r\n#") || err != nil || n == 0 {
			return fmt.Errorf("%w: it must name a host, or host:port; special characters of a password must be percent-encoded", ErrAddress)
		}
		a.hosts = append(a.hosts, net.JoinHostPort(host, p))
	}
	if a.kind == singleKind && len(a.hosts) > 1 {
		return fmt.Errorf("%w: several hosts are for redis+sentinel:// and redis+cluster://", ErrAddress)
	}
	return nil
}

// place reads the path: the database's number, after the master's name for Sentinel.
func (a *address) place(path string) error {
	if a.kind == sentinelKind {
		a.master, path, _ = strings.Cut(path, "/")
		if a.master == "" {
			return fmt.Errorf("%w: Sentinel's is redis+sentinel://host,host/master-name", ErrAddress)
		}
	}
	if path == "" {
		return nil
	}
	db, err := strconv.ParseUint(path, 10, 16)
	if err != nil {
		return fmt.Errorf("%w: the database is a number, as in redis://host/1", ErrAddress)
	}
	if a.kind == clusterKind && db != 0 {
		return fmt.Errorf("%w: a Cluster has database 0 only", ErrAddress)
	}
	a.db = int(db)
	return nil
}

// The options of a URL. Those of TLS name files.
const (
	optionClient           = "client_name"
	optionSentinelUser     = "sentinel_username"
	optionSentinelPassword = "sentinel_password" //nolint:gosec // the name of one
	optionCA               = "ca"
	optionCert             = "cert"
	optionKey              = "key"
	optionServerName       = "server_name"
)

func (a *address) options(query string) (url.Values, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%w: what follows the question mark", ErrAddress)
	}
	known := []string{optionClient}
	if a.kind == sentinelKind {
		known = append(known, optionSentinelUser, optionSentinelPassword)
	}
	if a.tls != nil {
		known = append(known, optionCA, optionCert, optionKey, optionServerName)
	}
	for name, values := range q {
		if !slices.Contains(known, name) || len(values) != 1 {
			return nil, fmt.Errorf("%w: it knows the options %s, each once", ErrAddress, strings.Join(known, ", "))
		}
	}
	if (q.Get(optionCert) == "") != (q.Get(optionKey) == "") {
		return nil, fmt.Errorf("%w: cert and key go together", ErrAddress)
	}
	a.client = q.Get(optionClient)
	a.sentinelUsername, a.sentinelPassword = q.Get(optionSentinelUser), q.Get(optionSentinelPassword)
	if a.tls != nil {
		a.tls.ServerName = q.Get(optionServerName)
	}
	return q, nil
}

// certificates reads the files that the options name.
func (a *address) certificates(options url.Values) error {
	if a.tls == nil {
		return nil
	}
	if file := options.Get(optionCA); file != "" {
		pem, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return fmt.Errorf("ledger/redis: reading the certificates of ca: %w", err)
		}
		a.tls.RootCAs = x509.NewCertPool()
		if !a.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%w: %s has no certificate", ErrAddress, file)
		}
	}
	if file := options.Get(optionCert); file != "" {
		cert, err := tls.LoadX509KeyPair(file, options.Get(optionKey))
		if err != nil {
			return fmt.Errorf("ledger/redis: reading the client's certificate: %w", err)
		}
		a.tls.Certificates = []tls.Certificate{cert}
	}
	return nil
}

// shown is the URL without passwords.
func (a *address) shown(scheme string, options url.Values) string {
	u := scheme + "://"
	if a.username != "" {
		u += url.PathEscape(a.username) + "@"
	}
	u += strings.Join(a.hosts, ",")
	if a.master != "" {
		u += "/" + a.master
	}
	if a.db != 0 {
		u += "/" + strconv.Itoa(a.db)
	}
	shown := url.Values{}
	for name, values := range options {
		if name != optionSentinelPassword {
			shown[name] = values
		}
	}
	if len(shown) > 0 {
		u += "?" + shown.Encode()
	}
	return u
}
