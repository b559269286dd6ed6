package wallet

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever lanes are at: of two payments of one payer exactly one sees the other before it. If both did, none would ever be sent where the
// money is for one; if none did, both would be.
func TestOneOfTwoComesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a aloft
		var batches [][]*job
		id := byte(0)
		for range rapid.IntRange(2, 12).Draw(t, "steps") {
			if len(batches) > 0 && rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				i := rapid.IntRange(0, len(batches)-1).Draw(t, "done")
				a.remove(batches[i])
				batches = slices.Delete(batches, i, i+1)
				continue
			}
			var batch []*job
			for range rapid.IntRange(1, 3).Draw(t, "size") {
				j := waiting(t.Context(), rapid.ByteRange(0, 2).Draw(t, "payer"), false, 0)
				id++
				j.in.Payment = string(rune(id))
				batch = append(batch, j)
			}
			a.add(batch)
			batches = append(batches, batch)
		}
		sees := func(one, other []*job) bool {
			before := a.before(one)
			return slices.ContainsFunc(other, func(j *job) bool { return slices.Contains(before, j) })
		}
		for i, one := range batches {
			for _, other := range batches[i+1:] {
				for _, x := range one {
					for _, y := range other {
						if x.in.Authorization.From != y.in.Authorization.From {
							continue
						}
						if sees([]*job{x}, []*job{y}) || !sees([]*job{y}, []*job{x}) || sees(one, []*job{y}) || !sees(other, []*job{x}) {
							t.Fatalf("%q and %q do not take turns", x.in.Payment, y.in.Payment)
						}
					}
				}
			}
		}
	})
}
