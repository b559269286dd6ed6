package token

import (
	"fmt"
	"testing"
	"time"
)

var algorithms = []string{"EdDSA", "ES256", "RS256", "HS256"}

func BenchmarkIssue(b *testing.B) {
	keys := everyKey(b)
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			i := Issuer{Keyring: ringOf(b, keys[alg]), Issuer: site, Now: func() time.Time { return start }}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i.Issue(Assertion, sale(), time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A token that is seen for the first time.
func BenchmarkVerifyUnseen(b *testing.B) {
	keys := everyKey(b)
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			ring := ringOf(b, keys[alg])
			v := verifier(b, ring, Access, 0)
			tok := issue(b, ring, Access, sale(), time.Hour)
			s := v.verified.shard(tok)
			b.ReportAllocs()
			for b.Loop() {
				clear(s.entries)
				if _, err := v.Verify(tok, start); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A token that was seen before: the price of every request under a plan.
func BenchmarkVerifyRemembered(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			ring := ringOf(b, edKey(b))
			v := verifier(b, ring, Access, 0)
			toks := make([]string, n)
			for i := range toks {
				c := sale()
				c.ID = fmt.Sprint("pay_", i)
				toks[i] = issue(b, ring, Access, c, time.Hour)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := v.Verify(toks[i%n], start); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// What a stranger's token costs us.
func BenchmarkRefuse(b *testing.B) {
	v := verifier(b, ringOf(b, edKey(b)), Access, 0)
	for name, tok := range map[string]string{
		"foreign": issue(b, ringOf(b, edKey(b)), Access, sale(), time.Hour),
		"noise":   "hello",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(tok, start); err == nil {
					b.Fatal("taken")
				}
			}
		})
	}
}
