package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// ErrServer: the server is not one that money can be kept in. The error says what it must be told.
var ErrServer = errors.New("ledger/redis: the server is not fit to keep a ledger")

// demands are what a server must be like. They are checked on each new connection: behind the same name another server
// may answer after a failover, or the same one with another configuration.
type demands struct {
	durable  bool
	replicas int // negative: as many as suits the servers
	sentinel bool
}

func (d demands) check(ctx context.Context, c *goredis.Conn, n *node, cluster bool) error {
	if d.sentinel {
		// The sentinels are asked over such connections too; they keep nothing.
		if info, err := information(ctx, c, "server"); err == nil && info["redis_mode"] == "sentinel" {
			return nil
		}
	}
	policy, err := evicts(ctx, c)
	if err != nil {
		return err
	}
	if policy != "noeviction" {
		return fmt.Errorf("%w: its maxmemory-policy is %s, which removes payments when memory is short; set `maxmemory-policy noeviction`", ErrServer, policy)
	}
	if d.durable {
		wait, err := d.disk(ctx, c)
		if err != nil {
			return err
		}
		n.waitAOF.Store(wait)
	}
	switch {
	case d.replicas >= 0:
		n.replicas.Store(int64(d.replicas))
	case d.sentinel:
		n.replicas.Store(1)
	case cluster:
		return d.copies(ctx, c, n)
	}
	return nil
}

// copies finds out whether a Cluster's primary has replicas to wait for.
func (d demands) copies(ctx context.Context, c informer, n *node) error {
	info, err := information(ctx, c, "replication")
	if err != nil {
		return err
	}
	copies := int64(0)
	if info["role"] == "master" && info["connected_slaves"] != "0" {
		copies = 1
	}
	n.replicas.Store(copies)
	return nil
}

type informer interface {
	Info(ctx context.Context, sections ...string) *goredis.StringCmd
}

// evicts is the server's maxmemory-policy, from INFO where CONFIG is forbidden.
func evicts(ctx context.Context, c *goredis.Conn) (string, error) {
	if got, err := c.ConfigGet(ctx, "maxmemory-policy").Result(); err == nil && got["maxmemory-policy"] != "" {
		return got["maxmemory-policy"], nil
	} else if !forbidden(err) {
		return "", err
	}
	info, err := information(ctx, c, "memory")
	if err != nil {
		return "", err
	}
	if info["maxmemory_policy"] == "" {
		return "", fmt.Errorf("%w: it does not tell its maxmemory-policy; allow its user CONFIG GET or INFO", ErrServer)
	}
	return info["maxmemory_policy"], nil
}

// disk finds how a write is known to be on the disk: either by its answer, or, from Redis 7.2, by WAITAOF.
func (d demands) disk(ctx context.Context, c *goredis.Conn) (wait bool, err error) {
	file, fsync := "", ""
	for name, value := range map[string]*string{"appendonly": &file, "appendfsync": &fsync} {
		got, err := c.ConfigGet(ctx, name).Result()
		if err != nil && !forbidden(err) {
			return false, err
		}
		*value = got[name]
	}
	if file == "yes" && fsync == "always" {
		return false, nil
	}
	info, err := information(ctx, c, "everything")
	if err != nil {
		return false, err
	}
	if file == "" && info["aof_enabled"] == "1" {
		file = "yes"
	}
	switch {
	case file != "yes":
		return false, fmt.Errorf("%w: it keeps no append-only file, so it forgets payments when it stops; set `appendonly yes` and `appendfsync always`", ErrServer)
	case atLeast(info["redis_version"], 7, 2):
		return true, nil
	case fsync == "":
		return false, fmt.Errorf("%w: it does not tell its appendfsync; allow its user CONFIG GET", ErrServer)
	}
	return false, fmt.Errorf("%w: with `appendfsync %s` the last payments are lost with the power; set `appendfsync always`, or use Redis 7.2 or later", ErrServer, fsync)
}

func forbidden(err error) bool {
	var said goredis.Error
	if err == nil {
		return true // answered with nothing
	}
	return errors.As(err, &said) && (strings.HasPrefix(said.Error(), "NOPERM") || strings.HasPrefix(said.Error(), "ERR unknown command"))
}

func information(ctx context.Context, c informer, section string) (map[string]string, error) {
	text, err := c.Info(ctx, section).Result()
	if err != nil {
		if forbidden(err) {
			return nil, fmt.Errorf("%w: it does not tell how it is configured; allow its user INFO", ErrServer)
		}
		return nil, err
	}
	got := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			got[name] = value
		}
	}
	return got, nil
}

func atLeast(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	b, err := strconv.Atoi(second)
	return err == nil && (a > major || a == major && b >= minor)
}
