package paywall

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }
