package redis

import (
	"context"
	"slices"

	"github.com/ethereum/go-ethereum/common"
)

// What expires, reservations and allowances, is kept in the same way: a string under its key, and in each part a list of keys by their ends.

// kept reads such strings, whether they have expired or not; those that there are not are empty.
func (s *Store) kept(ctx context.Context, place func(common.Hash) (part int, name string), keys []common.Hash) ([]string, error) {
	calls := make([]*call, len(keys))
	for i, key := range keys {
		part, name := place(key)
		calls[i] = reading("get", []string{s.keys.part(part, floorKey), name})
	}
	if err := s.ask(ctx, calls...); err != nil {
		return nil, err
	}
	texts := make([]string, len(keys))
	for i, c := range calls {
		if got := c.texts(1); len(got) > 0 {
			texts[i] = got[0]
		}
	}
	return texts, nil
}

// eachKept calls f with all that the lists of that name have, as read gives it, until f fails.
func eachKept[T any](
	ctx context.Context, s *Store, list string, read func(context.Context, ...common.Hash) ([]T, error), f func(T) error,
) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	for part := range partitions {
		c := reading("members", []string{s.keys.part(part, floorKey), s.keys.part(part, list)})
		if err := s.one(ctx, c); err != nil {
			return err
		}
		for members := range slices.Chunk(c.texts(1), 500) {
			keys := make([]common.Hash, len(members))
			for i, m := range members {
				keys[i] = common.BytesToHash([]byte(m))
			}
			got, err := read(ctx, keys...)
			if err != nil {
				return err
			}
			for _, v := range got {
				if err := f(v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
