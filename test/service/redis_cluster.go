//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// RedisCluster is a Redis Cluster.
type RedisCluster struct {
	// Primaries and Replicas are as they were made; a failover may have changed what they are since. Replicas follow
	// the primaries in turn.
	Primaries, Replicas []*Redis
}

// StartRedisCluster starts a Cluster of so many primaries, each with so many replicas.
func StartRedisCluster(ctx context.Context, primaries, replicas int, o RedisOptions) (*RedisCluster, error) {
	settings := map[string]string{"cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-config-file": "nodes.conf"}
	maps.Copy(settings, o.Settings)
	o.Settings = settings
	c := &RedisCluster{}
	for i := range primaries * (1 + replicas) {
		r, err := StartRedis(ctx, o)
		if err != nil {
			return nil, errors.Join(err, c.Stop())
		}
		if i < primaries {
			c.Primaries = append(c.Primaries, r)
		} else {
			c.Replicas = append(c.Replicas, r)
		}
	}
	if err := c.form(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

const redisSlots = 16384

// form makes the servers know each other, and shares out the slots.
func (c *RedisCluster) form(ctx context.Context) error {
	for i, r := range c.Primaries {
		from, to := redisSlots*i/len(c.Primaries), redisSlots*(i+1)/len(c.Primaries)-1
		if _, err := r.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", from, to); err != nil {
			return fmt.Errorf("sharing out the slots: %w", err)
		}
		if _, err := r.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return fmt.Errorf("numbering the nodes: %w", err)
		}
	}
	for _, r := range c.nodes()[1:] {
		bus, err := r.Do(ctx, "CONFIG", "GET", "cluster-port")
		if err != nil {
			return err
		}
		pair, _ := bus.([]any)
		if len(pair) != 2 {
			return fmt.Errorf("the cluster's port is %v", bus)
		}
		if _, err := c.Primaries[0].Do(ctx, "CLUSTER", "MEET", "127.0.0.1", r.port, pair[1]); err != nil {
			return fmt.Errorf("introducing the nodes: %w", err)
		}
	}
	if err := c.Whole(ctx); err != nil {
		return err
	}
	for i, r := range c.Replicas {
		id, err := c.Primaries[i%len(c.Primaries)].Do(ctx, "CLUSTER", "MYID")
		if err == nil {
			_, err = r.Do(ctx, "CLUSTER", "REPLICATE", id)
		}
		if err != nil {
			return fmt.Errorf("making a replica: %w", err)
		}
	}
	for _, r := range c.Replicas {
		if err := until(ctx, "the replica follows", func() (bool, error) {
			link, err := r.information(ctx, "master_link_status", "INFO", "replication")
			return link == "up", err
		}); err != nil {
			return err
		}
	}
	return c.Whole(ctx)
}

func (c *RedisCluster) nodes() []*Redis {
	return append(append([]*Redis{}, c.Primaries...), c.Replicas...)
}

// Whole waits until all nodes that run say that all slots are served, and know each other.
func (c *RedisCluster) Whole(ctx context.Context) error {
	for _, r := range c.nodes() {
		if !r.runs() {
			continue
		}
		if err := until(ctx, "the Cluster is whole", func() (bool, error) {
			state, err := r.information(ctx, "cluster_state", "CLUSTER", "INFO")
			if err != nil || state != "ok" {
				return false, err
			}
			known, err := r.information(ctx, "cluster_known_nodes", "CLUSTER", "INFO")
			return known == fmt.Sprint(len(c.nodes())), err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (r *Redis) runs() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cmd != nil
}

// URL is how the ledger's store connects to the Cluster.
func (c *RedisCluster) URL() string {
	var addrs []string
	for _, r := range c.nodes() {
		addrs = append(addrs, r.Addr())
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Stop ends all servers and removes their data.
func (c *RedisCluster) Stop() error {
	var errs []error
	for _, r := range c.nodes() {
		errs = append(errs, r.Stop())
	}
	return errors.Join(errs...)
}
