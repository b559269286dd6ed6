package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// powerFor is how long Redis keeps losing power.
const powerFor = 25 * time.Second

// Redis that writes its file to the disk once a second loses power under load, and with it the end of the file. What it forgot is
// served to nobody a second time and credited to nobody a second time, and the money that came in for it is in the ledger all the
// same.
func TestPowerLoss(t *testing.T) {
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	s := newScene(t, "redis-everysec", seed, newForgetfulRedis)
	s.mischief.faults = s.backend.faults // and nothing else
	s.play(powerFor)
}

// newForgetfulRedis is a server whose store does not wait for the disk.
func newForgetfulRedis(t *testing.T, _ string, _ int) *backend {
	server, err := service.StartRedis(t.Context(), service.RedisOptions{Fsync: "everysec"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	disk := &disk{server: server}
	t.Cleanup(disk.watch())
	return &backend{
		config: func(int) string { return "redis " + server.URL() + " {\n\t\t\tdurable off\n\t\t}" },
		open: func(ctx context.Context) (ledger.Store, error) {
			return redis.Open(ctx, server.URL(), redis.Options{})
		},
		faults: []fault{{
			kind: "store lost power", target: "Redis", least: 300 * time.Millisecond, most: 2 * time.Second, weight: 1,
			begin: disk.lose, end: func() error { return server.Restart(context.Background()) },
		}},
		forgets: true,
	}
}

// disk knows how long the server's file was a second ago: what came after that need not have reached the disk.
type disk struct {
	server *service.Redis

	mu    sync.Mutex
	sizes []int64 // of the last second, oldest first
	lost  int64
}

const look = 50 * time.Millisecond

// watch notes the file's length until stop is called.
func (d *disk) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if path, err := d.file(); err == nil {
				d.note(path)
			}
			select {
			case <-ctx.Done():
			case <-time.After(look):
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (d *disk) note(path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes = append(d.sizes, info.Size())
	if most := int(time.Second / look); len(d.sizes) > most {
		d.sizes = d.sizes[len(d.sizes)-most:]
	}
}

func (d *disk) file() (string, error) {
	found, err := filepath.Glob(filepath.Join(d.server.Dir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("the server's file is not in %s: %w", d.server.Dir(), os.ErrNotExist)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// lose kills the server and cuts its file to the length that it had a second ago.
func (d *disk) lose() error {
	if err := d.server.Kill(); err != nil {
		return err
	}
	path, err := d.file()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil || len(d.sizes) == 0 {
		return err
	}
	d.lost += info.Size() - d.sizes[0]
	err = os.Truncate(path, d.sizes[0])
	d.sizes = nil
	return err
}

// forgotten judges a ledger that lost its last second again and again. What was acknowledged may be gone, so that clients may be told
// what is not so; but no money is unaccounted for, and nothing that was forgotten is served or credited again.
func forgotten(e *evidence) *judgement {
	j := newJudgement(e)
	known := make(map[common.Hash]int)
	for i := range j.records {
		p := &j.records[i].Payment
		known[p.Nonce]++
		if err := ledger.VerifyAudit(p, j.records[i].Trail); err != nil {
			j.accuse(audit, p, "%v", err)
		}
		if p.Settlement == ledger.Settled {
			j.settled++
		}
		switch {
		case p.Delivery == ledger.Delivered:
			j.delivered++
		case p.Refund != ledger.NotRefunded:
			j.countBack(p)
		}
		if p.Delivery == ledger.Delivered && p.Refund != ledger.NotRefunded || known[p.Nonce] > 1 {
			j.accuse(doubled, p, "payment %s is credited twice: %s", p.ID, p.State())
		}
	}
	charged := make(map[common.Hash]int)
	for _, t := range j.chain.transfers {
		charged[t.nonce]++
		r := j.byNonce[t.nonce]
		if r == nil || r.Payment.Settlement != ledger.Settled || r.Payment.Transaction != t.tx {
			j.accuseFor(lost, j.numberOf(t.from), "the ledger does not have the transfer %s from client %d", t.tx, j.numberOf(t.from))
		}
		if charged[t.nonce] > 1 {
			j.accuseFor(doubled, j.numberOf(t.from), "the authorization %s was charged twice", t.nonce)
		}
	}
	for i := range j.records {
		if p := &j.records[i].Payment; p.Settlement == ledger.Settled && !p.PaysBack() && charged[p.Nonce] != 1 {
			j.accuse(discord, p, "payment %s is settled, and the chain has %d transfers of it", p.ID, charged[p.Nonce])
		}
	}
	j.judgeBacks()
	j.judgePurses()
	j.judgeForgotten()
	return j
}

// judgeForgotten: an authorization whose claim was lost served one request at most, the one before the loss.
func (j *judgement) judgeForgotten() {
	for nonce, r := range j.byNonce {
		if r.Payment.Reason != ledger.ReasonQuarantine {
			continue
		}
		j.quarantined++
		var serials []int
		for _, a := range j.byPayment[r.Payment.ID] {
			if a.Nonce == nonce && a.Serial != 0 && j.payment(a.Payment) == nil && !slices.Contains(serials, a.Serial) {
				serials = append(serials, a.Serial)
			}
		}
		if in := j.intents[intentOf(j.byPayment[r.Payment.ID])]; len(serials) > 1 && (in == nil || in.pass < 0) {
			j.accuse(doubled, &r.Payment, "authorization %s was forgotten and served %v", nonce, serials)
		}
	}
}

func intentOf(list []*attempt) string {
	if len(list) == 0 {
		return ""
	}
	return list[0].Intent
}

// accounted is an error while a transfer on chain is missing in the ledger: it is looked for now and then.
func (s *scene) accounted() error {
	chain, err := readChain(s.t.Context(), s.chain.URL())
	if err != nil {
		return err
	}
	records, _, err := readLedger(s.t.Context(), s.backend)
	if err != nil {
		return err
	}
	have := make(map[common.Hash]bool)
	for i := range records {
		if p := &records[i].Payment; p.Settlement == ledger.Settled {
			have[p.Nonce] = true
		}
	}
	missing := 0
	for _, t := range chain.transfers {
		if !have[t.nonce] {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d transfers are not in the ledger", missing, len(chain.transfers))
	}
	return nil
}
