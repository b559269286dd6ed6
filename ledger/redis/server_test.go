package redis_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
	"github.com/caddy-x402/caddy-x402/x402"
)

func newPayment(t testing.TB, payer byte, n uint64) ledger.Payment {
	t.Helper()
	from := common.Address{19: payer}
	id, err := ledger.NewID(rand.Reader, from)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Payment{
		ID:              id,
		AuthorizationID: x402.AuthorizationID{ChainID: 84532, Asset: common.Address{1}, Payer: from, Nonce: common.BigToHash(new(big.Int).SetUint64(n))},
		PayTo:           common.Address{2}, Amount: *uint256.NewInt(10_000), ValidBefore: 1_900_000_000, HeaderHash: common.Hash{3},
		Binding: ledger.Binding{Route: "weather", Method: "GET", Host: "api.example.com", URI: "/weather/today"},
		Flow:    ledger.FlowUpfront, ClaimBlock: 17,
	}
}

func open(t testing.TB, url string, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// lives brings a payment through all that a store does.
func lives(t *testing.T, s *redis.Store, n uint64) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Claim(ctx, newPayment(t, 1, n), ledger.Change{Actor: "request", Hold: time.Minute})
	must(err)
	wallet := common.Address{9}
	nonce, _, err := s.Nonce(ctx, 84532, wallet)
	must(err)
	must(s.Record(ctx, ledger.Transaction{ChainID: 84532, Wallet: wallet, Nonce: nonce, Hash: common.Hash{4, byte(n)}, Raw: []byte{1}, Payments: []string{p.ID}}, "request"))
	p, err = s.Update(ctx, p.ID, p.Version+1, ledger.Change{Event: ledger.EventSettle}, ledger.Change{Event: ledger.EventDeliver, Fence: 1, Hold: time.Minute},
		ledger.Change{Event: ledger.EventDelivered, Fence: 1, PlanUntil: s.Now().Add(time.Hour)}, ledger.Change{Event: ledger.EventFinal})
	must(err)
	must(s.AdvanceNonce(ctx, 84532, wallet, nonce+2))
	key := common.Hash{5, byte(n)}
	_, err = s.Reserve(ctx, ledger.Reservation{Key: key, Payment: p.ID}, "", time.Minute)
	must(err)
	must(s.KeepAnswer(ctx, key, p.ID, []byte("answer"), time.Minute))
	o, err := s.PutObject(ctx, ledger.Object{
		Kind: "key", ID: "k" + strconv.FormatUint(n, 10), Group: "g", Body: []byte("{}"), Due: s.Now(), Expires: s.Now().Add(time.Hour),
	})
	must(err)
	o, err = s.PutObject(ctx, o)
	must(err)
	_, err = s.Object(ctx, o.Kind, o.ID)
	must(err)
	_, err = s.Objects(ctx, o.Kind, o.Group, "", 5)
	must(err)
	_, err = s.DueObjects(ctx, o.Kind, s.Now().Add(time.Minute), 5)
	must(err)
	must(s.EachObject(ctx, func(ledger.Object) error { return nil }))
	must(s.DeleteObject(ctx, o.Kind, o.ID, o.Version))
	_, err = s.Lease(ctx, 5, time.Minute)
	must(err)
	must(s.Recheck(ctx, p.ID, time.Minute))
	_, err = s.Unserved(ctx, p, 5)
	must(err)
	plans, err := s.LivePlans(ctx, p.Payer, p.Binding.Route, p.Binding.Host, 5)
	if err != nil || len(plans) == 0 {
		t.Errorf("plans %v, %v", plans, err)
	}
	_, err = s.List(ctx, ledger.Query{Limit: 5})
	must(err)
	_, err = s.Counts(ctx)
	must(err)
	entries, err := s.Entries(ctx, ledger.Mark{}, s.Now(), 100)
	if err != nil || len(entries) == 0 {
		t.Errorf("entries %v, %v", entries, err)
	}
	_, err = ledger.NextAnchor(ctx, s, s.Now().Add(ledger.AnchorLag+time.Second))
	must(err)
	records, err := s.Records(ctx, "", 5)
	if err != nil || len(records) == 0 || ledger.VerifyAudit(&records[0].Payment, records[0].Trail) != nil {
		t.Errorf("records %v, %v", records, err)
	}
	_, err = s.Wallets(ctx)
	must(err)
	must(s.EachReservation(ctx, func(ledger.Reservation) error { return nil }))
	_, err = s.Sweep(ctx, time.Hour, 10)
	must(err)
	must(s.Ping(ctx))
	back, err := s.ByAuthorization(ctx, p.AuthorizationID)
	if err != nil || back != p {
		t.Errorf("read %+v (%v), want %+v", back, err, p)
	}
}

// A server that removes keys when memory is short, or forgets them when it stops, is refused, and told what it lacks.
func TestServerRefused(t *testing.T) {
	evicting := single(t, service.RedisOptions{Settings: map[string]string{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}})
	second := single(t, service.RedisOptions{Fsync: "everysec"})
	none := single(t, service.RedisOptions{Fsync: "off"})
	for name, tt := range map[string]struct {
		url     string
		durable bool
		say     string
	}{
		"evicting": {evicting.URL(), false, "noeviction"}, "no file": {none.URL(), true, "appendonly yes"},
	} {
		s, err := redis.Open(t.Context(), tt.url, redis.Options{Durable: tt.durable})
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, redis.ErrServer) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: %v, want ErrServer that says %q", name, err, tt.say)
		}
	}
	for _, r := range []*service.Redis{second, none} {
		lives(t, open(t, r.URL(), redis.Options{}), 1)
	}
	lives(t, open(t, single(t, service.RedisOptions{}).URL(), redis.Options{Durable: true}), 1)
}

// A server that syncs every second is asked to sync (WAITAOF) where it can be, which Redis 7.2 brought; else it is refused.
func TestEverySecond(t *testing.T) {
	r := single(t, service.RedisOptions{Fsync: "everysec"})
	s, err := redis.Open(t.Context(), r.URL(), redis.Options{Durable: true})
	if !canWait(t, r) {
		if !errors.Is(err, redis.ErrServer) || !strings.Contains(err.Error(), "appendfsync always") {
			t.Errorf("%v, want ErrServer that tells to sync always", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	lives(t, s, 1)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	stats, err := r.Do(t.Context(), "INFO", "commandstats")
	if text, _ := stats.(string); err != nil || !strings.Contains(text, "cmdstat_waitaof:calls=") {
		t.Errorf("it was not asked to sync: %v, %v", stats, err)
	}
}

// canWait reports whether the server knows WAITAOF.
func canWait(t *testing.T, r *service.Redis) bool {
	t.Helper()
	got, err := r.Do(t.Context(), "COMMAND", "INFO", "waitaof")
	list, _ := got.([]any)
	if err != nil || len(list) != 1 {
		t.Fatalf("asking for WAITAOF: %v, %v", got, err)
	}
	return list[0] != nil
}

// What a server was when the store was opened is asked again of every new connection.
func TestServerChecked(t *testing.T) {
	r := single(t, service.RedisOptions{})
	s := open(t, r.URL(), redis.Options{Durable: true})
	if _, err := r.Do(t.Context(), "CONFIG", "SET", "maxmemory-policy", "volatile-ttl"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), newPayment(t, 1, 1), ledger.Change{}); !errors.Is(err, redis.ErrServer) {
		t.Errorf("claimed on a server that evicts: %v", err)
	}
}

// aclLine is what the documentation of Open tells operators to write.
const aclLine = "ledger on >pass:w@rd/ ~x402:* -@all +eval +evalsha +time +info +config|get +wait +select" +
	" +get +set +del +exists +incr +getrange +setrange +pexpireat +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore +zcard +zscore +zcount +zrank" +
	" +hget +hset +hdel +hexists +rpush +lrange +llen +lindex +sadd +srem +smembers"

// A user with no more rights than the documented ones can do everything, in a database that is not the first.
func TestUser(t *testing.T) {
	r := single(t, service.RedisOptions{Settings: map[string]string{"user 1": "default off", "user 2": aclLine}})
	url := strings.Replace(r.URL(), "redis://", "redis://ledger:pass%3Aw%40rd%2F@", 1) + "/3"
	s := open(t, url, redis.Options{Durable: true})
	lives(t, s, 1)

	// Without CONFIG the policy is read from INFO; that the disk has it can't be seen.
	mute := single(t, service.RedisOptions{Settings: map[string]string{"user": strings.ReplaceAll(aclLine, " +config|get", "")}})
	url = strings.Replace(mute.URL(), "redis://", "redis://ledger:pass%3Aw%40rd%2F@", 1)
	lives(t, open(t, url, redis.Options{}), 1)
	silent := "CONFIG GET"
	if canWait(t, mute) {
		silent = "NOPERM" // it is asked to sync, which its user may not
	}
	for what, tt := range map[string]struct {
		url string
		o   redis.Options
		say string
	}{
		"a silent server":  {url, redis.Options{Durable: true}, silent},
		"a wrong password": {strings.Replace(r.URL(), "redis://", "redis://ledger:s3cr3t@", 1), redis.Options{}, "WRONGPASS"},
		"another's keys":   {url, redis.Options{Prefix: "other"}, "NOPERM"},
	} {
		s, err := redis.Open(t.Context(), tt.url, tt.o)
		if err == nil {
			err = errors.Join(s.Ping(t.Context()), s.Close())
		}
		if err == nil || !strings.Contains(err.Error(), tt.say) || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "w@rd") {
			t.Errorf("%s: %v, want %q", what, err, tt.say)
		}
	}
}

func TestUserOfCluster(t *testing.T) {
	c, err := service.StartRedisCluster(t.Context(), 3, 0, service.RedisOptions{Settings: map[string]string{"user": aclLine + " +cluster|slots +asking"}})
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, c)
	url := strings.Replace(c.URL(), "redis+cluster://", "redis+cluster://ledger:pass%3Aw%40rd%2F@", 1)
	lives(t, open(t, url, redis.Options{Durable: true}), 1)
}

// A call for a slot that is just moving to another server waits until it has moved: a Cluster makes no script with several keys there
// meanwhile.
func TestSlotMoves(t *testing.T) {
	c := cluster(t, 0)
	s := open(t, c.URL(), redis.Options{Durable: true})
	p, err := s.Claim(t.Context(), newPayment(t, 1, 1), ledger.Change{Hold: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	do := func(r *service.Redis, args ...any) any {
		t.Helper()
		got, err := r.Do(t.Context(), args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return got
	}
	var from, to *service.Redis
	var slot any
	for i, r := range c.Primaries {
		keys, _ := do(r, "KEYS", "*:p:*").([]any)
		if len(keys) == 1 {
			from, to = r, c.Primaries[(i+1)%len(c.Primaries)]
			slot = do(r, "CLUSTER", "KEYSLOT", keys[0])
		}
	}
	here, there := do(from, "CLUSTER", "MYID"), do(to, "CLUSTER", "MYID")
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)
	keys, _ := do(from, "CLUSTER", "GETKEYSINSLOT", slot, 1000).([]any)
	host, port, err := net.SplitHostPort(to.Addr())
	if err != nil {
		t.Fatal(err)
	}
	do(from, append([]any{"MIGRATE", host, port, "", 0, 5000, "KEYS"}, keys...)...)
	// All keys are there, and the slot is still here.
	updated := make(chan error, 1)
	go func() {
		var err error
		p, err = s.Update(context.WithoutCancel(t.Context()), p.ID, p.Version, ledger.Change{Event: ledger.EventSettle})
		updated <- err
	}()
	for asked := ""; !strings.Contains(asked, "cmdstat_asking"); {
		asked, _ = do(to, "INFO", "commandstats").(string)
	}
	for _, r := range c.Primaries {
		do(r, "CLUSTER", "SETSLOT", slot, "NODE", there)
	}
	if err := <-updated; err != nil {
		t.Fatal(err)
	}
	if got, err := s.Payment(t.Context(), p.ID); err != nil || got != p {
		t.Errorf("read %+v (%v), want %+v", got, err, p)
	}
	if _, err := s.Claim(t.Context(), newPayment(t, 1, 2), ledger.Change{}); err != nil {
		t.Error(err)
	}
}

// A server that is not there ends a call with its context: nothing was sent. One that is there and does not answer may have done
// what it was sent: then a context does not end the call, and its error does not say that nothing happened.
func TestContextAndServer(t *testing.T) {
	r := single(t, service.RedisOptions{})
	s := open(t, r.URL(), redis.WithPatience(redis.Options{}, 2*time.Second))
	claim := func(p ledger.Payment) error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := s.Claim(ctx, p, ledger.Change{})
		return err
	}
	first, second := newPayment(t, 1, 1), newPayment(t, 1, 2)
	if err := r.Pause(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	err := claim(first)
	if !errors.Is(err, redis.ErrUnanswered) || errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) > 40*time.Second {
		t.Errorf("a server that is paused: %v after %v", err, time.Since(begun))
	}
	if err := r.Continue(); err != nil {
		t.Fatal(err)
	}
	if err := claim(first); err != nil && !errors.Is(err, ledger.ErrExists) {
		t.Errorf("the same again: %v", err)
	}
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := claim(second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that is not there: %v", err)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Payment(t.Context(), second.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("what was not sent: %v", err)
	}
}

func TestDatabase(t *testing.T) {
	r := single(t, service.RedisOptions{})
	first, second := open(t, r.URL()+"/1", redis.Options{}), open(t, r.URL()+"/2?prefix=other", redis.Options{})
	p := newPayment(t, 1, 1)
	for _, s := range []*redis.Store{first, second} {
		if _, err := s.Claim(t.Context(), p, ledger.Change{}); err != nil {
			t.Errorf("databases share a ledger: %v", err)
		}
	}
	keys, err := r.Do(t.Context(), "KEYS", "*")
	if list, _ := keys.([]any); err != nil || len(list) != 0 {
		t.Errorf("database 0 has %v, %v", keys, err)
	}
}

// certificate makes one that signs itself, for localhost.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis.test"}, DNSNames: []string{"redis.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

// Over TLS the server must prove who it is.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	r := single(t, service.RedisOptions{Certificate: cert, Key: key})
	lives(t, open(t, r.URL()+"?ca="+cert, redis.Options{Durable: true}), 1)
	lives(t, open(t, r.URL()+"?ca="+cert+"&server_name=redis.test", redis.Options{}), 2)
	other, _ := certificate(t)
	for name, url := range map[string]string{
		"nobody's certificate": r.URL(), "another's": r.URL() + "?ca=" + other, "another name": r.URL() + "?ca=" + cert + "&server_name=other.test",
		"no TLS": strings.Replace(r.URL(), "rediss", "redis", 1),
	} {
		if s, err := redis.Open(t.Context(), url, redis.Options{}); err == nil {
			t.Errorf("%s: connected", name)
			_ = s.Close()
		}
	}
}
