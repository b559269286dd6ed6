package postgres

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Place is where a ledger is, whoever asks for it.
type Place struct {
	// Hosts are the addresses of the server, and of those that may stand in for it.
	Hosts []string
	// Database and Schema say which part of it; Schema is the search path, empty for the default.
	Database, Schema string
	// Loopback: it is reached without leaving this machine.
	Loopback bool
}

// Locate reads from a connection string where it leads to, and connects to nothing. No error shows a password.
func Locate(dsn string) (Place, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return Place{}, unreadable(dsn, err)
	}
	p := Place{Database: config.Database, Schema: config.RuntimeParams["search_path"], Loopback: true}
	if p.Database == "" {
		p.Database = config.User // as PostgreSQL does
	}
	if o := config.RuntimeParams["options"]; strings.Contains(o, "search_path") {
		p.Schema += o
	}
	p.add(config.Host, config.Port)
	for _, f := range config.Fallbacks {
		p.add(f.Host, f.Port)
	}
	return p, nil
}

func (p *Place) add(host string, port uint16) {
	at := net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
	switch ip := net.ParseIP(host); {
	case strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@"): // a socket
	case strings.EqualFold(host, "localhost"), ip != nil && ip.IsLoopback():
		at = net.JoinHostPort("localhost", strconv.Itoa(int(port)))
	default:
		p.Loopback = false
	}
	if !slices.Contains(p.Hosts, at) {
		p.Hosts = append(p.Hosts, at)
	}
}

// String is the same for all ways to write one place.
func (p Place) String() string {
	s := strings.Join(p.Hosts, ",") + "/" + p.Database
	if p.Schema != "" {
		s += "?search_path=" + p.Schema
	}
	return s
}

// HasPassword reports whether there is a password in a connection string itself, be it well-formed or not. Zero bytes stand
// for what is put in later.
func HasPassword(dsn string) bool {
	return slices.ContainsFunc(secrets(dsn), func(s string) bool { return strings.Trim(s, "\x00") != "" })
}
