package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Keys that must never be seen: the tests put them where configurations have them, and where they don't belong.
const (
	gasKey    = "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"
	refundKey = "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba"
	longToken = "kX9vQ2mWz7Rj4TbN8sLc1HgYf6Pd3AeUo5Vi"
	weakToken = "secretsecretsecretsecretsecretsecretsecret"
	badKey    = "c0ffee118294e51e653712a81e05800f419141751be58f605c371e15141b007"
	rpcSecret = "rpckeyrpckeyrpckey"
	payTo     = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
)

func setSecrets(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"T_RPC": "https://rpc.example.com/" + rpcSecret, "T_GAS": "0x" + gasKey, "T_REFUND": refundKey, "T_TOKEN": longToken,
		"T_WEAK": weakToken, "T_SHORT_KEY": badKey, "T_NO_URL": rpcSecret, "T_PAY_TO": payTo, "T_EMPTY": "", "T_BLANK": " \n ",
		"T_ZERO_KEY": strings.Repeat("0", 64),
	} {
		t.Setenv(name, value)
	}
}

// config is a Caddyfile; an empty app is a sound one.
func config(app, site string) string {
	if app == "" {
		app = soundApp
	}
	if site == "" {
		site = "x402 $0.01"
	}
	return string(caddyfile.Format(fmt.Appendf(nil, "{\nx402 {\n%s\n}\n}\n:9 {\n%s\n}\n", app, site)))
}

const soundApp = `
	network base
	pay_to ` + payTo + `
	rpc {env.T_RPC}
	wallet {env.T_GAS}
	refund {env.T_REFUND}
`

// app is the sound app with some lines replaced, by their first word; a line without arguments goes.
func app(lines ...string) string {
	text := soundApp
	for _, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		var kept []string
		for old := range strings.Lines(text) {
			if first, _, _ := strings.Cut(strings.TrimSpace(old), " "); first != word {
				kept = append(kept, old)
			}
		}
		if text = strings.Join(kept, ""); rest != "" {
			text += line + "\n"
		}
	}
	return text
}

// local is a sound app on a test network of this machine.
func local(lines ...string) string {
	return app(append([]string{"network base-sepolia", "rpc http://127.0.0.1:9/" + rpcSecret, "refunds off", "refund"}, lines...)...)
}

// provision does what `caddy validate` does, and gives what was logged.
func provision(t *testing.T, adapted []byte) (logs string, err error) {
	t.Helper()
	cfg := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(adapted, cfg); err != nil {
		t.Fatalf("%v in %s", err, adapted)
	}
	dir := t.TempDir()
	storage := filepath.Join(dir, "storage")
	cfg.StorageRaw = json.RawMessage(fmt.Sprintf(`{"module":"file_system","root":%q}`, storage))
	path := filepath.Join(dir, "caddy.log")
	cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{
		WriterRaw: json.RawMessage(fmt.Sprintf(`{"output":"file","filename":%q}`, path)), Level: "DEBUG",
	}}}}
	err = caddy.Validate(cfg)
	written, readErr := os.ReadFile(path)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if _, statErr := os.Stat(storage); statErr == nil {
		t.Error("validating wrote to the storage")
	}
	return string(written), err
}

// refused checks what validating says, and that neither it nor the log tells a secret. An empty want means: accepted.
func refused(t *testing.T, adapted []byte, want string) {
	t.Helper()
	logs, err := provision(t, adapted)
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("accepted, want: %s", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("error: %v\nwant: %s", err, want)
	}
	for _, secret := range []string{gasKey, refundKey, longToken, weakToken, badKey, rpcSecret, hookSecret[6:], hookKey, strings.Repeat("0", 64)} {
		if strings.Contains(fmt.Sprint(err), secret) || strings.Contains(logs, secret) {
			t.Errorf("tells %s: %v\n%s", secret, err, logs)
		}
	}
}

func refusals(t *testing.T, cases map[string]struct{ app, site, want string }) {
	t.Helper()
	setSecrets(t)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			adapted, err := adapt(config(tc.app, tc.site))
			if err != nil {
				t.Fatal(err)
			}
			refused(t, adapted, tc.want)
		})
	}
}

const noLiteral = "a private key must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path}"

func TestKeysInConfigurations(t *testing.T) {
	const notAKey = "is not a private key; it must be 64 hexadecimal digits, with or without 0x"
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "{file." + path + "}"
	}
	fromFile, emptyFile := write("key", "0x"+gasKey+"\n"), write("empty", "\n")
	refusals(t, map[string]struct{ app, site, want string }{
		"sound":                        {},
		"from a file":                  {app: app("wallet " + fromFile)},
		"an empty file":                {app: app("wallet " + emptyFile), want: "the gas wallet's key: the placeholder " + emptyFile + " gives nothing"},
		"a file that is not there":     {app: app("wallet {file./no/such/file}"), want: "the placeholder {file./no/such/file} gives nothing"},
		"literal on a mainnet":         {app: app("wallet 0x" + gasKey), want: "network base: the gas wallet's key: " + noLiteral},
		"literal, endpoint elsewhere":  {app: local("wallet "+gasKey, "rpc https://sepolia.example.com"), want: noLiteral},
		"literal, one elsewhere":       {app: local("wallet "+gasKey, "rpc http://localhost:1 https://sepolia.example.com"), want: noLiteral},
		"literal, a name like ours":    {app: local("wallet "+gasKey, "rpc http://localhost.example.com"), want: noLiteral},
		"literal on a mainnet's fork":  {app: app("wallet "+gasKey, "rpc http://127.0.0.1:8545"), want: noLiteral},
		"literal on the local chain":   {app: local("wallet " + gasKey)},
		"literal on ::1":               {app: local("wallet "+gasKey, "rpc http://[::1]:8545")},
		"literal refund key":           {app: app("refund " + refundKey), want: "the refund wallet's key: " + noLiteral},
		"literal refund key, local":    {app: local("refunds", "refund "+refundKey, "wallet "+gasKey)},
		"half a placeholder":           {app: app("wallet 0x{env.T_GAS}"), want: noLiteral},
		"two placeholders":             {app: app("wallet {env.T_GAS}{env.T_GAS}"), want: noLiteral},
		"not set":                      {app: app("wallet {env.T_NOT_SET}"), want: "the gas wallet's key: the placeholder {env.T_NOT_SET} gives nothing; set it and try again"},
		"empty":                        {app: app("wallet {env.T_EMPTY}"), want: "the placeholder {env.T_EMPTY} gives nothing"},
		"blank":                        {app: app("wallet {env.T_BLANK}"), want: "the gas wallet's key " + notAKey},
		"unknown placeholder":          {app: app("wallet {vault.key}"), want: "the placeholder {vault.key} gives nothing"},
		"a key in braces":              {app: app("wallet {" + gasKey + "}"), want: "the gas wallet's key: the placeholder in it gives nothing"},
		"a key for a variable's name":  {app: app("wallet {env." + gasKey + "}"), want: "the gas wallet's key: the placeholder in it gives nothing"},
		"too short":                    {app: app("wallet {env.T_SHORT_KEY}"), want: "the gas wallet's key " + notAKey},
		"zero":                         {app: app("wallet {env.T_ZERO_KEY}"), want: "the gas wallet's key " + notAKey},
		"a token secret":               {app: app("wallet {env.T_TOKEN}"), want: "the gas wallet's key " + notAKey},
		"bad refund key":               {app: app("refund {env.T_SHORT_KEY}"), want: "the refund wallet's key " + notAKey},
		"refund not set":               {app: app("refund {env.T_NOT_SET}"), want: "the refund wallet's key: the placeholder {env.T_NOT_SET} gives nothing"},
		"no refund":                    {app: app("refund"), want: "what is paid and can't be delivered must go back: write `refund {env.REFUND_WALLET_PRIVATE_KEY}`, or `refunds off` to pay back by hand"},
		"refunds off":                  {app: app("refund", "refunds off")},
		"literal token key":            {app: app("token_key " + longToken), want: "token key 1: a secret must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path}"},
		"literal token key, local":     {app: local("token_key " + longToken), want: "token key 1: a secret must not stand"},
		"weak token key":               {app: app("token_key {env.T_WEAK}"), want: "token key 1: "},
		"token key that is not set":    {app: app("token_key {env.T_NOT_SET}"), want: "token key 1: the placeholder {env.T_NOT_SET} gives nothing"},
		"sound token key":              {app: app("token_key {env.T_TOKEN}")},
		"second token key is bad":      {app: app() + "token_key {env.T_TOKEN}\ntoken_key {env.T_EMPTY}", want: "token key 2: the placeholder {env.T_EMPTY} gives nothing"},
		"the same token key twice":     {app: app() + "token_key {env.T_TOKEN}\ntoken_key {env.T_TOKEN}", want: "token keys: "},
		"no wallet":                    {app: app("wallet"), want: "network base: nobody moves the money: write `wallet {env.GAS_WALLET_PRIVATE_KEY}`"},
		"a wallet of another network":  {app: app("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "polygon", "wallet {env.T_SHORT_KEY}"), want: "network polygon: the gas wallet's key " + notAKey},
		"literal beside a local chain": {app: local("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "base-sepolia", "wallet "+gasKey), want: "network base-sepolia: the gas wallet's key: " + noLiteral},
		"literal refund, one mainnet":  {app: local("network", "rpc", "pay_to", "wallet", "refunds", "refund "+refundKey) + twoNetworks("base", "base-sepolia", "wallet {env.T_GAS}"), want: "the refund wallet's key: " + noLiteral},
	})
}

// twoNetworks are sound, but for the second one's wallet.
func twoNetworks(first, second, wallet string) string {
	one := func(name, wallet string) string {
		return fmt.Sprintf("network %s {\npay_to %s\nrpc {env.T_RPC}\n%s\n}\n", name, payTo, wallet)
	}
	return one(first, "wallet {env.T_GAS}") + one(second, wallet)
}

func TestAddressesInConfigurations(t *testing.T) {
	const asset = "asset %s {\nname USDC\nversion 2\n}"
	custom := func(network, address string) string {
		return app("network "+network) + fmt.Sprintf(asset, address)
	}
	const notAnAddress = "is not an address; it must be 0x and 40 hexadecimal digits"
	refusals(t, map[string]struct{ app, site, want string }{
		"from the environment":      {app: app("pay_to {env.T_PAY_TO}")},
		"lower case":                {app: app("pay_to " + strings.ToLower(payTo))},
		"upper case":                {app: app("pay_to 0x" + strings.ToUpper(payTo[2:]))},
		"none":                      {app: app("pay_to"), want: "network base: pay_to is missing"},
		"not set":                   {app: app("pay_to {env.T_NOT_SET}"), want: "pay_to: the placeholder {env.T_NOT_SET} gives nothing"},
		"wrong checksum":            {app: app("pay_to 0x209693bc6afc0C5328bA36FaF03C514EF312287C"), want: "has a wrong checksum (EIP-55), so a digit is probably wrong; check it, or write it in lower case"},
		"a digit is wrong":          {app: app("pay_to 0x209693Bc6afc0C5328bA36FaF03C514EF312287D"), want: "has a wrong checksum"},
		"too short":                 {app: app("pay_to 0x209693Bc6afc0C5328bA36FaF03C514EF31228"), want: notAnAddress},
		"without 0x":                {app: app("pay_to " + strings.ToLower(payTo[2:])), want: notAnAddress},
		"a name":                    {app: app("pay_to seller.eth"), want: `pay_to "seller.eth" ` + notAnAddress},
		"zero":                      {app: app("pay_to 0x0000000000000000000000000000000000000000"), want: "pay_to is the zero address"},
		"a key by mistake":          {app: app("pay_to {env.T_GAS}"), want: "pay_to {env.T_GAS} " + notAnAddress},
		"a literal key by mistake":  {app: app("pay_to " + gasKey), want: "pay_to " + notAnAddress},
		"custom chain":              {app: custom("eip155:31337", payTo)},
		"custom chain without one":  {app: app("network eip155:31337"), want: `"eip155:31337" is not a network that is known here; write its CAIP-2 identifier, such as eip155:8453, and an asset`},
		"asset with wrong checksum": {app: custom("base", "0x209693bc6afc0C5328bA36FaF03C514EF312287C"), want: "asset 0x209693bc6afc0C5328bA36FaF03C514EF312287C has a wrong checksum"},
		"asset at zero":             {app: custom("base", "0x0000000000000000000000000000000000000000"), want: "asset is the zero address"},
		"asset without a name":      {app: app() + "asset " + payTo + " {\nversion 2\n}", want: "asset: name and version of its EIP-712 domain are missing"},
		"asset without a version":   {app: app() + "asset " + payTo + " {\nname USDC\n}", want: "asset: name and version of its EIP-712 domain are missing"},
	})
}

func TestNetworksInConfigurations(t *testing.T) {
	asset := "asset " + payTo + " {\nname USDC\nversion 2\n}"
	const notHTTP = "rpc: an endpoint must be an address that begins with https:// (or http://)"
	refusals(t, map[string]struct{ app, site, want string }{
		"by CAIP-2":                      {app: app("network eip155:8453")},
		"unknown":                        {app: app("network bas"), want: `network bas: "bas" is not a network that is known here`},
		"solana":                         {app: app("network solana:mainnet") + asset, want: `"solana:mainnet" is not a network: `},
		"no chain id":                    {app: app("network eip155:") + asset, want: "no chain id after eip155:"},
		"a name with an asset":           {app: app("network optimism") + asset, want: `"optimism" is not a network: `},
		"twice":                          {app: app("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "base", "wallet {env.T_GAS}"), want: "network base is there twice"},
		"twice by two names":             {app: app("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "eip155:8453", "wallet {env.T_GAS}"), want: "network eip155:8453 is there twice with the same asset"},
		"two":                            {app: app("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "polygon", "wallet {env.T_GAS}")},
		"two assets of one network":      {app: app("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "base", "wallet {env.T_GAS}\n"+asset)},
		"second without pay_to":          {app: app("network", "rpc", "pay_to", "wallet") + "network base {\npay_to " + payTo + "\nrpc {env.T_RPC}\nwallet {env.T_GAS}\n}\nnetwork polygon {\nrpc {env.T_RPC}\nwallet {env.T_GAS}\n}", want: "network polygon: pay_to is missing"},
		"no rpc":                         {app: app("rpc"), want: "rpc is missing: the address of an endpoint of the chain, such as {env.BASE_RPC_URL}"},
		"rpc not set":                    {app: app("rpc {env.T_NOT_SET}"), want: "rpc: the placeholder {env.T_NOT_SET} gives nothing"},
		"second rpc is empty":            {app: app("rpc {env.T_RPC} {env.T_EMPTY}"), want: "rpc: the placeholder {env.T_EMPTY} gives nothing"},
		"rpc is no address":              {app: app("rpc {env.T_NO_URL}"), want: notHTTP},
		"rpc is a WebSocket":             {app: app("rpc wss://rpc.example.com/" + rpcSecret), want: notHTTP},
		"rpc with a bad escape":          {app: app("rpc https://rpc.example.com/%zz" + rpcSecret), want: notHTTP},
		"rpc without a host":             {app: app("rpc https:///" + rpcSecret), want: notHTTP},
		"rpc with a name and a password": {app: app("rpc https://me:" + rpcSecret + "@rpc.example.com")},
		"no networks":                    {app: "refunds off", want: "the x402 app has no network to be paid on; add network, pay_to, rpc and wallet to the global option x402"},
		"no networks, no handler":        {app: "refunds off", site: "x402_service"},
	})
}

func TestWalletSettings(t *testing.T) {
	wallet := func(line string) string { return app("wallet {env.T_GAS} {\n" + line + "\n}") }
	refusals(t, map[string]struct{ app, site, want string }{
		"all":             {app: wallet("max_fee 0.000000001\nwarn_balance 1\nmin_balance 0.000000000000000001")},
		"max_fee":         {app: wallet("max_fee 0.0000000001"), want: "max_fee: "},
		"negative":        {app: wallet("max_fee -1"), want: "max_fee: "},
		"exponent":        {app: wallet("min_balance 1e-3"), want: "min_balance: "},
		"with a unit":     {app: wallet("max_fee 1gwei"), want: "max_fee: "},
		"too many digits": {app: wallet("warn_balance 0.0000000000000000001"), want: "warn_balance: "},
	})
}

func TestTimesInConfigurations(t *testing.T) {
	refusals(t, map[string]struct{ app, site, want string }{
		"max_timeout beyond max_validity":    {app: app("max_timeout 2h"), want: "max_timeout is longer than max_validity: what clients are told to sign would be refused"},
		"max_validity below max_timeout":     {app: app("max_validity 1m"), want: "max_timeout is longer than max_validity"},
		"both":                               {app: app("max_timeout 2h", "max_validity 3h")},
		"retention of a day":                 {app: app("retention 1d"), want: "retention must be 48h0m0s or more, or be left out to keep everything"},
		"retention of a year":                {app: app("retention 365d")},
		"max_stale below what is heard":      {app: app("max_stale 1s"), want: "max_stale must be 2s or more"},
		"max_timeout that nobody could meet": {app: app("max_timeout 15s"), want: "max_timeout must be more than 15s: "},
	})
	for _, name := range []string{"max_timeout", "settle_timeout", "max_validity", "min_age", "hold_ttl", "interval", "max_stale"} {
		t.Run(name+" negative", func(t *testing.T) {
			refused(t, changed(t, "", func(c map[string]any) { appOf(c)[name] = -1 }), name+" must be more than zero")
		})
		t.Run(name+" no duration", func(t *testing.T) {
			refused(t, changed(t, "", func(c map[string]any) { appOf(c)[name] = "soon" }), "soon")
		})
	}
}

func TestPublicURL(t *testing.T) {
	cases := map[string]struct{ app, site, want string }{}
	for _, good := range []string{
		"https://api.example.com", "https://api.example.com/", "http://localhost:8080", "https://example.com/api/v1", "https://[::1]:8443",
	} {
		cases[good] = struct{ app, site, want string }{app: app("public_url " + good)}
	}
	for _, bad := range []string{
		"api.example.com", "//api.example.com", "ftp://api.example.com", "https://", "https://api.example.com?a=b", "https://api.example.com#top",
		"mailto:me@example.com", "https://api.example.com/%zz", "https://api.example.com:port",
	} {
		cases[bad] = struct{ app, site, want string }{app: app("public_url " + bad), want: "is not an address; write one such as https://api.example.com"}
	}
	cases["with a password"] = struct{ app, site, want string }{
		app: app("public_url https://me:" + longToken + "@api.example.com"), want: "is not an address; write one such as https://api.example.com",
	}
	refusals(t, cases)
}

// A changed configuration is the sound one as JSON, with something wrong that a Caddyfile can't say.
func changed(t *testing.T, site string, change func(map[string]any)) []byte {
	t.Helper()
	setSecrets(t)
	adapted, err := adapt(config("", site))
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(adapted, &c); err != nil {
		t.Fatal(err)
	}
	change(c)
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func appOf(c map[string]any) map[string]any {
	return c["apps"].(map[string]any)["x402"].(map[string]any)
}

func networkOf(c map[string]any) map[string]any {
	return appOf(c)["networks"].([]any)[0].(map[string]any)
}

func handlerOf(c map[string]any) map[string]any {
	at := c["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)["srv0"].(map[string]any)
	return at["routes"].([]any)[0].(map[string]any)["handle"].([]any)[0].(map[string]any)
}

// JSON is the truth: what a Caddyfile refuses is refused there, too, and a slip of the pen is an error and no panic.
func TestJSONConfigurations(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"unknown field of the app":     {func(c map[string]any) { appOf(c)["netwroks"] = 1 }, `unknown field "netwroks"`},
		"unknown field of a network":   {func(c map[string]any) { networkOf(c)["payto"] = payTo }, `unknown field "payto"`},
		"unknown field of the wallet":  {func(c map[string]any) { networkOf(c)["settler"].(map[string]any)["kees"] = 1 }, `unknown field "kees"`},
		"unknown field of the store":   {func(c map[string]any) { appOf(c)["store"] = map[string]any{"store": "sqlite", "file": "x"} }, `unknown field "file"`},
		"unknown field of the handler": {func(c map[string]any) { handlerOf(c)["price"] = "$1" }, `unknown field "price"`},
		"unknown field of a price":     {func(c map[string]any) { handlerOf(c)["prices"] = []any{map[string]any{"amount": "1", "matches": 1}} }, `unknown field "matches"`},
		"unknown store":                {func(c map[string]any) { appOf(c)["store"] = map[string]any{"store": "tape"} }, "unknown module: x402.stores.tape"},
		"unknown settler":              {func(c map[string]any) { networkOf(c)["settler"] = map[string]any{"settler": "hope"} }, "unknown module: x402.settlers.hope"},
		"a null network":               {func(c map[string]any) { appOf(c)["networks"] = []any{nil} }, "network number 1 is null"},
		"a null price":                 {func(c map[string]any) { handlerOf(c)["prices"] = []any{nil} }, "price number 1 is null"},
		"a null plan":                  {func(c map[string]any) { handlerOf(c)["plans"] = []any{nil} }, "plan number 1 is null"},
		"a network without a name":     {func(c map[string]any) { delete(networkOf(c), "network") }, "network number 1: network is missing: its name, such as base, or its CAIP-2 identifier"},
		"a price that never counts": {func(c map[string]any) {
			handlerOf(c)["prices"] = []any{map[string]any{"amount": "1"}, map[string]any{"amount": "2"}}
		}, "price number 2 would never count: one before it has no match"},
		"a price without an amount": {func(c map[string]any) { handlerOf(c)["prices"] = []any{map[string]any{}} }, "a price needs an amount, such as $0.01"},
		"a plan without a name":     {func(c map[string]any) { handlerOf(c)["plans"] = []any{map[string]any{"price": "1", "ttl": "1h"}} }, "a plan needs a name"},
		"a plan that headers can't say": {func(c map[string]any) {
			handlerOf(c)["plans"] = []any{map[string]any{"name": "a\nb", "price": "1", "ttl": "1h"}}
		}, "has a character that a header can't hold"},
		"a plan that is over at once": {func(c map[string]any) {
			handlerOf(c)["plans"] = []any{map[string]any{"name": "a", "price": "1", "ttl": "1ms"}}
		}, "plan a needs a ttl of a second or more"},
		"a retention that has ended":   {func(c map[string]any) { appOf(c)["retention"] = -1 }, "retention must be 48h0m0s or more"},
		"idempotency by half":          {func(c map[string]any) { handlerOf(c)["idempotency"] = map[string]any{"mode": "on"} }, `idempotency "on" is neither off nor optional nor required`},
		"a negative buffer":            {func(c map[string]any) { handlerOf(c)["flow"], handlerOf(c)["buffer"] = "authorization", -1 }, "flow authorization: buffer must be between 1 byte and 64 MiB"},
		"a buffer of a gigabyte":       {func(c map[string]any) { handlerOf(c)["flow"], handlerOf(c)["buffer"] = "authorization", 1<<30 }, "buffer must be between 1 byte and 64 MiB"},
		"answers of less than a byte":  {func(c map[string]any) { handlerOf(c)["idempotency"] = map[string]any{"max_answer": -1} }, "max_answer must be between 1 byte and 16 MiB"},
		"answers of a gigabyte":        {func(c map[string]any) { handlerOf(c)["idempotency"] = map[string]any{"max_answer": 1 << 30} }, "max_answer must be between 1 byte and 16 MiB"},
		"unknown field of idempotency": {func(c map[string]any) { handlerOf(c)["idempotency"] = map[string]any{"size": 1} }, `unknown field "size"`},
		"a matcher that is not there":  {func(c map[string]any) { handlerOf(c)["exempt"] = []any{map[string]any{"nonesuch": 1}} }, "unknown module: http.matchers.nonesuch"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, changed(t, "", tc.change), tc.want) })
	}
}

func TestPrices(t *testing.T) {
	cases := map[string]struct{ app, site, want string }{
		"smallest":  {site: "x402 0.000001"},
		"dollar":    {site: "x402 $1"},
		"of a plan": {site: "x402 {\nplan day 0.0000001 {\nttl 1h\n}\n}", want: "plan day: price \"0.0000001\" on eip155:8453: "},
		"second network counts fewer decimals": {
			app:  app("network", "rpc", "pay_to", "wallet") + twoNetworks("base", "polygon", "wallet {env.T_GAS}\nasset "+payTo+" {\nname A\nversion 1\ndecimals 2\n}"),
			site: "x402 0.001", want: "price \"0.001\" on eip155:137: ",
		},
	}
	for bad, want := range map[string]string{
		"0": "is zero", "$0.00": "is zero", "-1": "has a sign", "+1": "has a sign", "1e-2": "not a plain decimal number",
		"0.0000001": "7 decimals, but the asset has 6; write at most 6 digits after the point", "1,00": "not a plain decimal number",
		".5": "nothing before the point; write 0.5", "5.": "nothing after the point; write 5", "$": "nothing there; write a decimal number such as 0.01",
		"01": "needless leading zeros", "$$1": "not a plain decimal number", "free": "not a plain decimal number", "0x10": "not a plain decimal number",
		"1USDC": "not a plain decimal number", "1_000": "not a plain decimal number", "٣": "not a plain decimal number",
		"115792089237316195423570985008687907853269984665640564039457584007913129639936": "more than a token can count",
	} {
		cases[bad] = struct{ app, site, want string }{site: "x402 " + bad, want: want}
		cases["price "+bad] = struct{ app, site, want string }{site: "x402 {\nprice " + bad + "\n}", want: want}
	}
	refusals(t, cases)
}

func TestHandlers(t *testing.T) {
	match := "price $1 {\nmatch path /a\n}\n"
	refusals(t, map[string]struct{ app, site, want string }{
		"no price":                      {site: "x402", want: "nothing has a price; write one, such as `x402 /path/* $0.01`, or a plan"},
		"no price but a name":           {site: "x402 {\nname a\n}", want: "nothing has a price"},
		"the rest is not said":          {site: "x402 {\n" + match + "}", want: "some requests match no price; write `unpriced free` or `unpriced deny`, or a price without match"},
		"the rest is free":              {site: "x402 {\n" + match + "unpriced free\n}"},
		"the rest is denied":            {site: "x402 {\n" + match + "unpriced deny\n}"},
		"the rest has a price":          {site: "x402 {\n" + match + "price $2\n}"},
		"the rest is neither":           {site: "x402 {\n" + match + "unpriced maybe\n}", want: `unpriced "maybe" is neither free nor deny`},
		"there is no rest":              {site: "x402 $1 {\nunpriced free\n}", want: "unpriced has no meaning: a price without match is the price of everything else"},
		"a pass opens all, no rest":     {site: "x402 {\nplan day $1 {\nttl 1h\n}\nunpriced free\n}", want: "unpriced has no meaning"},
		"passes alone":                  {site: "x402 {\nplan day $1 {\nttl 1h\n}\n}"},
		"two plans of one name":         {site: "x402 {\nplan day $1 {\nttl 1h\n}\nplan day $2 {\nttl 2h\n}\n}", want: "plan day is there twice"},
		"one plan on different terms":   {site: "x402 /a {\nname x\nplan day $1 {\nttl 1h\n}\n}\nx402 /b {\nname x\nplan day $2 {\nttl 1h\n}\n}", want: `two sets of routes are called "x" and sell plan day on different terms`},
		"two prices of one name":        {site: "x402 {\nprice $1 {\nname a\nmatch path /a\n}\nprice $2 {\nname a\n}\n}", want: `two prices have the name "site#a"; payments could not be told apart`},
		"a name like a number":          {site: "x402 {\nprice $1 {\nname 2\nmatch path /a\n}\nprice $2\n}", want: `two prices have the name "site#2"`},
		"keys are required":             {site: "x402 $1 {\nidempotency required\n}"},
		"keys are off":                  {site: "x402 $1 {\nidempotency off\n}"},
		"keys are off, and configured":  {site: "x402 $1 {\nidempotency off {\nttl 1h\n}\n}", want: "idempotency off leaves nothing to configure"},
		"keys for a second":             {site: "x402 $1 {\nidempotency optional {\nttl 1s\n}\n}", want: "idempotency: ttl must be 10 minutes or more"},
		"keys for nine minutes":         {site: "x402 $1 {\nidempotency optional {\nttl 9m59s\n}\n}", want: "would let that be charged twice"},
		"flow upfront":                  {site: "x402 $1 {\nflow upfront\n}"},
		"flow authorization":            {site: "x402 $1 {\nflow authorization\n}"},
		"flow authorization, no refund": {app: app("refund"), site: "x402 $1 {\nflow authorization {\nbuffer 64KiB\n}\n}"},
		"two flows":                     {site: "x402 {\nprice $1 {\nmatch path /a\nflow authorization\n}\nprice $2\n}"},
		"two flows, no refund":          {app: app("refund"), site: "x402 {\nprice $1 {\nmatch path /a\nflow authorization\n}\nprice $2\n}", want: "what is paid and can't be delivered must go back"},
		"no flow upfront, no refund":    {app: app("refund"), site: "x402 {\nflow upfront\nprice $1 {\nflow authorization\n}\n}"},
		"flow deferred":                 {site: "x402 $1 {\nflow deferred\n}", want: "flow deferred lends to payers, and no network says how much"},
		"flow deferred, with credit":    {app: app("credit $0.50 $50"), site: "x402 $1 {\nflow deferred\n}"},
		"flow deferred, no refund":      {app: app("credit $0.50 $50", "refund"), site: "x402 $1 {\nflow deferred\n}", want: "what is paid and can't be delivered must go back"},
		"plans with deferred":           {app: app("credit $0.50 $50"), site: "x402 $1 {\nflow deferred\nplan day $2 {\nttl 24h\n}\n}", want: "plans can't be sold with flow deferred"},
		"less credit in total":          {app: app("credit $5 $1"), want: "credit: $1 in total is less than $5 for each payer"},
		"credit that is no amount":      {app: app("credit lots $1"), want: `credit "lots" for each payer`},
		"credit by a facilitator":       {app: app("credit $0.50 $50", "wallet", "facilitator https://f.example"), want: "credit has no meaning with this settler"},
		"a facilitator":                 {app: app("wallet", "facilitator https://f.example")},
		"a flow of a price":             {site: "x402 {\nprice $1 {\nflow later\n}\n}", want: `flow "later" is not known`},
		"plans with authorization":      {site: "x402 $1 {\nflow authorization\nplan day $2 {\nttl 24h\n}\n}", want: "plans can't be sold with flow authorization"},
		"nothing to hold back":          {site: "x402 $1 {\nflow upfront {\nbuffer 1KiB\n}\n}", want: "buffer has no meaning without flow authorization"},
		"origin without a scheme":       {site: "x402 $1 {\ncors app.example.com\n}", want: `cors: "app.example.com" is not an origin; write one such as https://app.example.com`},
		"origin with a path":            {site: "x402 $1 {\ncors https://app.example.com/\n}", want: "is not an origin"},
		"origin with a fragment":        {site: "x402 $1 {\ncors https://app.example.com#a\n}", want: "is not an origin"},
		"origin with a name":            {site: "x402 $1 {\ncors https://me@app.example.com\n}", want: "is not an origin"},
		"all origins by a star":         {site: "x402 $1 {\ncors *\n}", want: "is not an origin"},
		"off and an origin":             {site: "x402 $1 {\ncors off https://app.example.com\n}", want: `cors: "off" is not an origin`},
		"origins":                       {site: "x402 $1 {\ncors https://app.example.com http://localhost:3000 chrome-extension://abcdef\n}"},
		"a matcher that does not parse": {site: "x402 {\nprice $1 {\nmatch path_regexp (\n}\nunpriced deny\n}", want: "loading matchers: "},
		"an exemption that can't parse": {site: "x402 $1 {\nexempt remote_ip ten\n}", want: "loading matchers: "},
	})
}

func TestHandlersWithoutTheApp(t *testing.T) {
	for site, want := range map[string]string{
		"x402 $1":          "the x402 handler needs the x402 app; add the global option x402 with a network, pay_to, rpc and wallet",
		"x402_service":     "x402_service needs the x402 app; add the global option x402",
		"x402_facilitator": "x402_facilitator needs the x402 app; add the global option x402 with a network, pay_to, rpc and wallet",
	} {
		adapted, err := adapt(":9 {\n\t" + site + "\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		refused(t, adapted, want)
	}
}
