package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A session ends what lasts longer than these. So an instance that stops between two statements keeps no row for long, and
// nothing that it wrote before can appear when the anchor over its time is made (ledger.AnchorLag).
const (
	statementTimeout = 8 * time.Second
	lockTimeout      = 5 * time.Second
	idleTimeout      = 8 * time.Second // within a transaction
	// patience is a little longer: the server's own word of what came of it is better than none.
	patience = 10 * time.Second

	connectTimeout = 5 * time.Second
	pingTimeout    = 3 * time.Second
)

// prepareSession sets what every session needs, whatever the server, the database or the role have for defaults. It is a
// statement, not part of the connection's start, which poolers such as PgBouncer refuse. A commit is answered when it is on
// the disk; who has asked for more (remote_apply) keeps it.
var prepareSession = fmt.Sprintf(`SELECT set_config('statement_timeout', '%d', false), set_config('lock_timeout', '%d', false),
	set_config('idle_in_transaction_session_timeout', '%d', false), set_config('default_transaction_isolation', 'read committed', false),
	set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
	set_config('jit', 'off', false)`, statementTimeout.Milliseconds(), lockTimeout.Milliseconds(), idleTimeout.Milliseconds())

// poolConfig is how to connect.
func poolConfig(dsn string, o Options) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, unreadable(dsn, err)
	}
	switch {
	case o.MaxConns > 0:
		config.MaxConns = int32(min(o.MaxConns, 1<<16))
	case !strings.Contains(dsn, "pool_max_conns"):
		config.MaxConns = DefaultMaxConns
	}
	config.MinConns = min(config.MinConns, config.MaxConns)
	if config.PingTimeout == 0 {
		config.PingTimeout = pingTimeout
	}
	prepareConfig(config.ConnConfig, o)
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		// Who waits for the connection may have left: nobody else would end this.
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if _, err := c.Exec(ctx, prepareSession); err != nil {
			return fmt.Errorf("preparing the session: %w", err)
		}
		return nil
	}
	return config, nil
}

func prepareConfig(config *pgx.ConnConfig, o Options) {
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if _, ok := config.RuntimeParams["application_name"]; !ok {
		config.RuntimeParams["application_name"] = "caddy-x402"
	}
	if o.dial != nil {
		config.DialFunc = o.dial
	}
}

// unreadable says that dsn can't be read, without showing what may be a password in it. The driver hides what it takes
// for one; where it is in doubt what that is, nothing of the reason is shown.
func unreadable(dsn string, err error) error {
	const what = "ledger/postgres: the database's URL can't be read; write postgres://user:password@host:port/database?sslmode=…"
	text := err.Error()
	// What the driver quotes is not needed: the operator has it.
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	for _, secret := range secrets(dsn) {
		if strings.Contains(text, secret) {
			return errors.New(what)
		}
	}
	return fmt.Errorf("%s: %s", what, text)
}

var passwordWord = regexp.MustCompile(`(?i)password\s*=\s*('(?:[^'\\]|\\.)*'?|[^\s&]*)`)

// secrets are the parts of a connection string that may be a password, also of one that is not well-formed.
func secrets(dsn string) []string {
	var found []string
	add := func(s string) {
		s = strings.Trim(s, "'")
		// A part of it is a secret as well: what follows an unescaped character that ended it for the parser.
		for _, part := range append(strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("/?#@:%[] ", r) }), s) {
			if part != "" {
				found = append(found, part)
			}
		}
		if plain, err := url.QueryUnescape(s); err == nil && plain != s && plain != "" {
			found = append(found, plain)
		}
	}
	if _, rest, ok := strings.Cut(dsn, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			if _, password, ok := strings.Cut(rest[:at], ":"); ok {
				add(password)
			}
		}
	}
	for _, m := range passwordWord.FindAllStringSubmatch(dsn, -1) {
		add(m[1])
	}
	return found
}
