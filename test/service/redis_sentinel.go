//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
)

// RedisSentinel is a primary with replicas, and three sentinels that promote a replica when the primary dies.
type RedisSentinel struct {
	// Servers are the first primary, and its replicas.
	Servers   []*Redis
	Sentinels []*Redis
}

// redisMaster is the name that the sentinels know the primary by.
const redisMaster = "ledger"

// StartRedisSentinel starts a primary with so many replicas. A primary that does not answer for half a second is replaced.
func StartRedisSentinel(ctx context.Context, replicas int, o RedisOptions) (*RedisSentinel, error) {
	s := &RedisSentinel{}
	if err := s.start(ctx, replicas, o); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *RedisSentinel) start(ctx context.Context, replicas int, o RedisOptions) error {
	for range 1 + replicas {
		settings := map[string]string{}
		maps.Copy(settings, o.Settings)
		if len(s.Servers) > 0 {
			settings["replicaof"] = fmt.Sprintf("127.0.0.1 %d", s.Servers[0].port)
		}
		with := o
		with.Settings = settings
		r, err := StartRedis(ctx, with)
		if err != nil {
			return err
		}
		s.Servers = append(s.Servers, r)
	}
	for _, r := range s.Servers[1:] {
		if err := until(ctx, "the replica follows", func() (bool, error) {
			link, err := r.information(ctx, "master_link_status", "INFO", "replication")
			return link == "up", err
		}); err != nil {
			return err
		}
	}
	for range 3 {
		r, err := StartRedis(ctx, RedisOptions{sentinel: true, Settings: map[string]string{
			"sentinel 1": fmt.Sprintf("monitor %s 127.0.0.1 %d 2", redisMaster, s.Servers[0].port),
			"sentinel 2": fmt.Sprintf("down-after-milliseconds %s 500", redisMaster),
			"sentinel 3": fmt.Sprintf("failover-timeout %s 3000", redisMaster),
		}})
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, r)
	}
	return s.Ready(ctx, replicas)
}

// Ready waits until the sentinels know each other, the primary, and so many replicas that follow it.
func (s *RedisSentinel) Ready(ctx context.Context, replicas int) error {
	for _, r := range s.Sentinels {
		if err := until(ctx, "the sentinels know everybody", func() (bool, error) {
			line, err := r.information(ctx, "master0", "INFO", "sentinel")
			return strings.Contains(line, "status=ok") && strings.Contains(line, fmt.Sprintf("slaves=%d", replicas)) &&
				strings.Contains(line, "sentinels=3"), err
		}); err != nil {
			return err
		}
	}
	return until(ctx, "the replicas follow", func() (bool, error) {
		master, err := s.Master(ctx) // while they agree, it may be another one
		if err != nil {
			return false, err
		}
		n, err := master.information(ctx, "connected_slaves", "INFO", "replication")
		return n == fmt.Sprint(replicas) || replicas == 0, err
	})
}

// Master is the server that the sentinels name.
func (s *RedisSentinel) Master(ctx context.Context) (*Redis, error) {
	for _, sentinel := range s.Sentinels {
		got, err := sentinel.Do(ctx, "SENTINEL", "get-master-addr-by-name", redisMaster)
		if err != nil {
			continue
		}
		pair, _ := got.([]any)
		if len(pair) != 2 {
			continue
		}
		for _, r := range s.Servers {
			if r.Addr() == net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1])) {
				return r, nil
			}
		}
	}
	return nil, errors.New("no sentinel names a primary")
}

// URL is how the ledger's store connects.
func (s *RedisSentinel) URL() string {
	var addrs []string
	for _, r := range s.Sentinels {
		addrs = append(addrs, r.Addr())
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/" + redisMaster
}

// Stop ends all servers and removes their data.
func (s *RedisSentinel) Stop() error {
	var errs []error
	for _, r := range append(append([]*Redis{}, s.Sentinels...), s.Servers...) {
		errs = append(errs, r.Stop())
	}
	return errors.Join(errs...)
}
