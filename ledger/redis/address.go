package redis

import (
	"cmp"
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
	prefix             string
	tls                *tls.Config

	sentinelUsername, sentinelPassword string

	scheme string
	// open are the options that are no secrets.
	open url.Values
}

// Place is where a ledger is, without who asks for it.
type Place struct {
	// Name is the same for one ledger, however its URL is written.
	Name string
	// Shown is the URL as it may be shown: without passwords.
	Shown string
	// Loopback says that all servers that the URL names are on this machine.
	Loopback bool
}

// Locate reads where the ledger of a URL is. prefix is that of Options.
func Locate(rawURL, prefix string) (Place, error) {
	a, _, err := parseAddress(rawURL)
	if err != nil {
		return Place{}, err
	}
	if prefix, err = a.prefixed(prefix); err != nil {
		return Place{}, err
	}
	p := Place{Shown: a.shown(), Loopback: true}
	var hosts []string
	for _, h := range a.hosts {
		host, port, err := net.SplitHostPort(strings.ToLower(h))
		if err != nil {
			return Place{}, fmt.Errorf("%w: the host %s", ErrAddress, h)
		}
		if host == "localhost" {
			host = "127.0.0.1"
		}
		ip := net.ParseIP(host)
		p.Loopback = p.Loopback && ip != nil && ip.IsLoopback()
		hosts = append(hosts, net.JoinHostPort(host, port))
	}
	slices.Sort(hosts)
	p.Name = strings.Join(slices.Compact(hosts), ",")
	if a.master != "" {
		p.Name += "/" + a.master
	}
	p.Name += fmt.Sprintf("/%d/%s", a.db, prefix)
	return p, nil
}

// HasPassword reports whether the URL carries a password. One that can't be understood may carry one anywhere.
func HasPassword(rawURL string) bool {
	a, _, err := parseAddress(rawURL)
	if err != nil {
		return strings.Contains(rawURL, "@") || strings.Contains(rawURL, optionSentinelPassword)
	}
	return a.password != "" || a.sentinelPassword != ""
}

// prefixed is what begins every key: what is said, or what the URL says, or the default.
func (a *address) prefixed(said string) (string, error) {
	prefix := cmp.Or(said, a.prefix, "x402")
	if strings.ContainsAny(prefix, "{}*?[]\\ \t\r\n") {
		return "", fmt.Errorf("%w: the prefix %q must have no braces, stars or spaces", ErrAddress, prefix)
	}
	return prefix, nil
}

// parseAddress reads a URL; the options are for files that are not read yet.
func parseAddress(rawURL string) (*address, url.Values, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, nil, fmt.Errorf("%w: it must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://", ErrAddress)
	}
	a := &address{}
	a.scheme = strings.ToLower(scheme)
	scheme = a.scheme
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
	a.open = options
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
	for h := range strings.SplitSeq(list, ",") {
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
	optionPrefix           = "prefix"
	optionSentinelUser     = "sentinel_username"
	optionSentinelPassword = "sentinel_password"
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
	known := []string{optionPrefix, optionClient}
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
	a.client, a.prefix = q.Get(optionClient), q.Get(optionPrefix)
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
		pem, err := os.ReadFile(file)
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
func (a *address) shown() string {
	u := a.scheme + "://"
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
	for name, values := range a.open {
		if name != optionSentinelPassword {
			shown[name] = values
		}
	}
	if len(shown) > 0 {
		u += "?" + shown.Encode()
	}
	return u
}
