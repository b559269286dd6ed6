package redis_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger/redis"
)

func TestLocate(t *testing.T) {
	for url, want := range map[string]redis.Place{
		"redis://host":                     {Name: "host:6379/0/x402", Shown: "redis://host:6379"},
		"redis://127.0.0.1:6380/15":        {Name: "127.0.0.1:6380/15/x402", Shown: "redis://127.0.0.1:6380/15", Loopback: true},
		"REDIS://user:pa%3Ass@LocalHost/":  {Name: "127.0.0.1:6379/0/x402", Shown: "redis://user@LocalHost:6379", Loopback: true},
		"rediss://:p@ss@[::1]?ca=%2Fca":    {Name: "[::1]:6379/0/x402", Shown: "rediss://[::1]:6379?ca=%2Fca", Loopback: true},
		"redis+cluster://b:1,a,b:1":        {Name: "a:6379,b:1/0/x402", Shown: "redis+cluster://b:1,a:6379,b:1"},
		"redis+sentinel://a,b:7/main/3":    {Name: "a:26379,b:7/main/3/x402", Shown: "redis+sentinel://a:26379,b:7/main/3"},
		"redis://h?prefix=y&client_name=n": {Name: "h:6379/0/y", Shown: "redis://h:6379?client_name=n&prefix=y"},
		"redis+sentinel://a/m?sentinel_username=u&sentinel_password=s3cr3t": {
			Name: "a:26379/m/0/x402", Shown: "redis+sentinel://a:26379/m?sentinel_username=u",
		},
	} {
		if got, err := redis.Locate(url, ""); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", url, got, err, want)
		}
	}
	if got, err := redis.Locate("redis://h?prefix=y", "z"); err != nil || got.Name != "h:6379/0/z" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLocateRefuses(t *testing.T) {
	for _, url := range []string{
		"", "h", "http://h", "redis:h", "redis://", "redis+nothing://h", "redis://a,b", "redis://:s3cr3t/x@h", "redis://u:s3cr3t#x@h:s3cr3t", "redis://h:s3cr3t",
		"redis://h:0", "redis://h:65536", "redis://h/s3cr3t", "redis://h/-1", "redis+cluster://h/1", "redis+sentinel://h", "redis+sentinel://h/", "redis://h?s3cr3t=1",
		"redis://h?sentinel_password=s3cr3t", "redis://h?ca=/x", "rediss://h?cert=/x", "redis://h?client_name=a&client_name=b", "redis://u:%zzs3cr3t@h", "redis://a,,b",
		"redis://h?prefix={s}", "redis://h?%zz",
	} {
		_, err := redis.Locate(url, "")
		if !errors.Is(err, redis.ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows a secret: %v", url, err)
		}
	}
}

// Whatever an operator writes, nothing is shown that stood where passwords stand.
func FuzzLocate(f *testing.F) {
	f.Add("redis://u:", "@h/1")
	f.Add("redis+sentinel://a,b/m?sentinel_password=", "")
	f.Add("rediss://:", "@[::1]:6?ca=x")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "s3cr3tpa55word"
		url := before + secret + after
		place, err := redis.Locate(url, "")
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", url, err)
			}
			return
		}
		again, err := redis.Locate(place.Shown, "")
		if err != nil || again.Name != place.Name || again.Shown != place.Shown {
			t.Errorf("%q is shown as %q, which is %+v, %v", url, place.Shown, again, err)
		}
		if redis.HasPassword(place.Shown) {
			t.Errorf("%q is shown as %q", url, place.Shown)
		}
	})
}
