package wallet

import (
	"context"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

func waiting(ctx context.Context, payer byte, alone bool, most int) *job {
	return &job{
		ctx: ctx, in: settlement.Intent{Authorization: x402.Authorization{From: common.Address{payer}}},
		verdict: verdict{alone: alone}, most: most, done: make(chan dispatched, 1),
	}
}

// However payments come and go: none is lost or handed out twice, what must travel alone does, no batch is larger than it may
// be, and payers with one payment do not wait for those of a payer who has many.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		q.init()
		most := rapid.IntRange(1, 60).Draw(t, "most")
		q.resize(most)
		in := make(map[*job]bool)
		var taken []*job
		var stop []context.CancelFunc
		defer func() {
			for _, cancel := range stop {
				cancel()
			}
		}()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				ctx, cancel := context.WithCancel(context.Background())
				j := waiting(ctx, rapid.Byte().Draw(t, "payer")%5, rapid.IntRange(0, 9).Draw(t, "alone") == 0, rapid.SampledFrom([]int{0, 0, 0, 1, 2, 5}).Draw(t, "batch"))
				err := q.put(j)
				if err == nil {
					in[j] = true
				} else if !errors.Is(err, settlement.ErrUnavailable) {
					t.Fatal(err)
				}
				if rapid.IntRange(0, 9).Draw(t, "leaves") == 0 {
					cancel()
				}
				stop = append(stop, cancel)
			case 3:
				q.back(taken)
				for _, j := range taken {
					in[j] = true
				}
				taken = nil
			default:
				n := rapid.IntRange(1, 20).Draw(t, "n")
				taken = q.take(n)
				if len(taken) > n {
					t.Fatalf("%d of %d", len(taken), n)
				}
				for _, j := range taken {
					if !in[j] {
						t.Fatal("handed out twice, or never put in")
					}
					delete(in, j)
					if len(taken) > 1 && j.alone() || j.most > 0 && len(taken) > j.most {
						t.Fatalf("a batch of %d with a payment that wants %d at most, alone: %t", len(taken), j.most, j.alone())
					}
				}
			}
		}
		n, _ := q.look()
		for {
			got := q.take(7)
			if len(got) == 0 {
				break
			}
			for _, j := range got {
				if !in[j] {
					t.Fatal("handed out twice, or never put in")
				}
				delete(in, j)
			}
		}
		for j := range in {
			if j.ctx.Err() == nil {
				t.Fatal("a payment was lost")
			}
			if d := <-j.done; d.err == nil {
				t.Fatal("who left was told nothing")
			}
		}
		if rest, _ := q.look(); rest != 0 || n < 0 {
			t.Fatalf("%d wait in the end", rest)
		}
	})
}

// A payer who floods the queue waits behind itself, and can't fill it.
func TestQueueIsFair(t *testing.T) {
	var q queue
	q.init()
	q.resize(160)
	ctx := t.Context()
	for range 10 {
		if err := q.put(waiting(ctx, 1, false, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.put(waiting(ctx, 1, false, 0)); !errors.Is(err, errShare) {
		t.Errorf("got %v", err)
	}
	for payer := byte(2); payer < 6; payer++ {
		if err := q.put(waiting(ctx, payer, false, 0)); err != nil {
			t.Fatal(err)
		}
	}
	count := make(map[byte]int)
	for _, j := range q.take(6) {
		count[j.in.Authorization.From[0]]++
	}
	if count[1] != 2 || count[2] != 1 || count[5] != 1 {
		t.Errorf("of the first six: %v", count)
	}
	for payer := byte(10); ; payer++ {
		err := q.put(waiting(ctx, payer, false, 0))
		if errors.Is(err, errFull) {
			break
		}
		if err != nil || payer == 255 {
			t.Fatalf("payer %d: %v", payer, err)
		}
	}
	if err := q.room(common.Address{9}); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

// A place is reserved once, however often the journal fails.
func TestCostsOfOnePlace(t *testing.T) {
	var c costs
	now, limit := time.Now(), big.NewInt(10)
	for range 5 {
		if err := c.reserve(now, place{nonce: 1}, big.NewInt(6), limit); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.reserve(now, place{nonce: 2}, big.NewInt(5), limit); !errors.Is(err, errSpent) {
		t.Errorf("got %v", err)
	}
}
