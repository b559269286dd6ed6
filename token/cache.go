package token

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	cacheShards = 64
	// How many entries are looked at to find one to drop.
	cacheSample = 8
)

// cache holds verified tokens by their whole text, signature included, so that finding one proves as much as verifying it.
// Only tokens that somebody bought get in. It is divided so that cores don't wait for each other.
type cache struct {
	shards   [cacheShards]cacheShard
	perShard int

	mu      sync.Mutex
	revoked map[string]time.Time // token id -> when it may be forgotten
	sweepAt int
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[string]*cacheEntry
	_       [32]byte // a cache line of its own
}

type cacheEntry struct {
	claims      *Claims
	set         *keySet
	from, until int64        // valid in [from, until), unix milliseconds
	used        atomic.Int64 // last use, unix seconds
}

func newCache(size int) *cache {
	c := &cache{perShard: max(1, size/cacheShards), revoked: map[string]time.Time{}, sweepAt: 64}
	for i := range c.shards {
		c.shards[i].entries = map[string]*cacheEntry{}
	}
	return c
}

// shard spreads tokens by the end of their signature, which is as good as random.
func (c *cache) shard(token string) *cacheShard {
	var h uint32 = 2166136261
	for i := max(0, len(token)-8); i < len(token); i++ {
		h = (h ^ uint32(token[i])) * 16777619
	}
	return &c.shards[(h>>16^h)%cacheShards]
}

// get is the hot path: it allocates nothing. A token verified with another set of keys doesn't count.
func (c *cache) get(token string, set *keySet, now time.Time) *Claims {
	s := c.shard(token)
	s.mu.RLock()
	e := s.entries[token]
	s.mu.RUnlock()
	if e == nil {
		return nil
	}
	t := now.UnixMilli()
	if e.set != set || t < e.from || t >= e.until {
		s.drop(token, e)
		return nil
	}
	if sec := t / 1000; e.used.Load() != sec {
		e.used.Store(sec)
	}
	return e.claims
}

func (s *cacheShard) drop(token string, e *cacheEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[token] == e {
		delete(s.entries, token)
	}
}

// put remembers a verified token, and reports false if it was revoked meanwhile. keyUntil is when its key retires, or zero.
func (c *cache) put(token string, claims *Claims, set *keySet, keyUntil, now time.Time) bool {
	until := claims.ExpiresAt.Add(Leeway)
	if !keyUntil.IsZero() && keyUntil.Before(until) {
		until = keyUntil
	}
	from := claims.NotBefore.Time
	if claims.IssuedAt.After(from) {
		from = claims.IssuedAt.Time
	}
	e := &cacheEntry{claims: claims, set: set, from: from.Add(-Leeway).UnixMilli(), until: until.UnixMilli()}
	e.used.Store(now.Unix())
	s := c.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Under the shard's lock: revoke marks first and clears the shards afterwards, so one of the two sees the other.
	if c.isRevoked(claims.ID) {
		return false
	}
	if len(s.entries) >= c.perShard {
		s.makeRoom(now)
	}
	s.entries[strings.Clone(token)] = e // the caller's string may be part of a larger one
	return true
}

// makeRoom drops what is over among a few entries, or else the one of them that was not used for longest.
func (s *cacheShard) makeRoom(now time.Time) {
	var (
		oldest  string
		least   int64
		seen    int
		dropped bool
	)
	for token, e := range s.entries {
		if e.until <= now.UnixMilli() {
			delete(s.entries, token)
			dropped = true
		} else if used := e.used.Load(); oldest == "" || used < least {
			oldest, least = token, used
		}
		if seen++; seen == cacheSample {
			break
		}
	}
	if !dropped {
		delete(s.entries, oldest)
	}
}

func (c *cache) isRevoked(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.revoked[id]
	return ok
}

func (c *cache) revoke(id string, until, now time.Time) {
	c.mu.Lock()
	if len(c.revoked) >= c.sweepAt {
		maps.DeleteFunc(c.revoked, func(_ string, t time.Time) bool { return t.Before(now) })
		c.sweepAt = max(64, 2*len(c.revoked))
	}
	// The leeway of the verifier must not outlive its memory.
	if t := until.Add(Leeway); c.revoked[id].Before(t) {
		c.revoked[id] = t
	}
	c.mu.Unlock()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		maps.DeleteFunc(s.entries, func(_ string, e *cacheEntry) bool { return e.claims.ID == id })
		s.mu.Unlock()
	}
}
