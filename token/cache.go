package token

import (
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
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[string]*cacheEntry
	_       [32]byte // a cache line of its own
}

type cacheEntry struct {
	claims      *Claims
	set         *keySet
	from, until int64         // valid in [from, until), unix milliseconds
	used        atomic.Int64  // last use, unix seconds
	revoked     atomic.Uint64 // the version of the revocations in which it was looked for
}

func newCache(size int) *cache {
	c := &cache{perShard: max(1, size/cacheShards)}
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

// get is the hot path: it allocates nothing. A token verified with another set of keys doesn't count, nor one that is revoked.
func (c *cache) get(token string, set *keySet, revoked *Revoked, now time.Time) *Claims {
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
	// What is added after the version was read makes it another.
	if v := revoked.version.Load(); e.revoked.Load() != v {
		if revoked.Has(e.claims.ID) {
			s.drop(token, e)
			return nil
		}
		e.revoked.Store(v)
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

// put remembers a verified token, which was not among those of this version of the revocations. keyUntil is when its key retires, or zero.
func (c *cache) put(token string, claims *Claims, set *keySet, version uint64, keyUntil, now time.Time) {
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
	e.revoked.Store(version)
	s := c.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) >= c.perShard {
		s.makeRoom(now)
	}
	s.entries[strings.Clone(token)] = e // the caller's string may be part of a larger one
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
