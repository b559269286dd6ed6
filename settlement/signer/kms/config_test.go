package kms

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	const arn = "arn:aws:kms:eu-central-1:111122223333:"
	good := Config{Key: "alias/gas"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		say    string // "" is for what is right
	}{
		"no key":                  {func(c *Config) { c.Key = "" }, "no key is named"},
		"an id":                   {func(c *Config) { c.Key = "1234abcd-12ab-34cd-56ef-1234567890ab" }, ""},
		"of several regions":      {func(c *Config) { c.Key = "mrk-1234abcd12ab34cd56ef1234567890ab" }, ""},
		"a long alias":            {func(c *Config) { c.Key = "alias/shop/gas_wallet-1" }, ""},
		"an ARN":                  {func(c *Config) { c.Key = arn + "key/1234abcd" }, ""},
		"an alias' ARN":           {func(c *Config) { c.Key = arn + "alias/gas" }, ""},
		"in China":                {func(c *Config) { c.Key = "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd" }, ""},
		"blanks":                  {func(c *Config) { c.Key = "alias/ gas" }, "is no key's id"},
		"a placeholder":           {func(c *Config) { c.Key = "{env.KEY}" }, "is no key's id"},
		"another service's ARN":   {func(c *Config) { c.Key = "arn:aws:s3:::bucket" }, "not the ARN of a KMS key"},
		"an ARN of something":     {func(c *Config) { c.Key = arn + "grant/1" }, "not the ARN of a KMS key"},
		"an ARN without region":   {func(c *Config) { c.Key = "arn:aws:kms::111122223333:key/1234abcd" }, "not the ARN of a KMS key"},
		"half an ARN":             {func(c *Config) { c.Key = "arn:aws:kms" }, "is no key's id"},
		"the ARN's region":        {func(c *Config) { c.Key, c.Region = arn+"key/1234abcd", "eu-central-1" }, ""},
		"another region":          {func(c *Config) { c.Key, c.Region = arn+"key/1234abcd", "us-east-1" }, "the key's ARN says eu-central-1"},
		"a region":                {func(c *Config) { c.Region = "us-gov-west-1" }, ""},
		"no region":               {func(c *Config) { c.Region = "Frankfurt am Main" }, "write one such as"},
		"an endpoint":             {func(c *Config) { c.Endpoint = "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com" }, ""},
		"on this machine":         {func(c *Config) { c.Endpoint = "http://localhost:4566" }, ""},
		"on this machine, IPv6":   {func(c *Config) { c.Endpoint = "http://[::1]:4566" }, ""},
		"in the open":             {func(c *Config) { c.Endpoint = "http://kms.internal:4566" }, "must have https"},
		"looks like this machine": {func(c *Config) { c.Endpoint = "http://localhost.example" }, "must have https"},
		"no scheme":               {func(c *Config) { c.Endpoint = "kms.eu-central-1.amazonaws.com" }, "is no address"},
		"another scheme":          {func(c *Config) { c.Endpoint = "ftp://localhost" }, "is no address"},
		"with a password":         {func(c *Config) { c.Endpoint = "https://user:s3cr3t@kms.example" }, "is no address"},
		"no URL":                  {func(c *Config) { c.Endpoint = "https://s3cr3t%zz" }, "is no address"},
		"credentials":             {func(c *Config) { c.AccessKeyID, c.SecretAccessKey, c.SessionToken = "a", "s3cr3t", "t" }, ""},
		"half of them":            {func(c *Config) { c.SecretAccessKey = "s3cr3t" }, "give both"},
		"the other half":          {func(c *Config) { c.AccessKeyID = "a" }, "give both"},
		"a token alone":           {func(c *Config) { c.SessionToken = "s3cr3t" }, "without an access key"},
		"a negative timeout":      {func(c *Config) { c.Timeout = -time.Second }, "negative"},
	} {
		c := good
		tc.change(&c)
		err := c.Validate()
		if tc.say == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if tc.say != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tc.say)) {
			t.Errorf("%s: %v, want: %s", name, err, tc.say)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
		if tc.say == "" {
			continue
		}
		if k, openErr := Open(t.Context(), c); k != nil || openErr == nil || openErr.Error() != err.Error() {
			t.Errorf("%s: opening gives %v, %v", name, k, openErr)
		}
	}
}

// Who shares a signer must mean the same key of the same service; what it is reached with does not matter.
func TestID(t *testing.T) {
	a := Config{Key: "alias/gas", Region: "eu-central-1"}
	same := a
	same.AccessKeyID, same.SecretAccessKey, same.Timeout = "a", "b", time.Second
	if a.ID() != same.ID() {
		t.Errorf("%q and %q", a.ID(), same.ID())
	}
	for _, other := range []Config{
		{Key: "alias/other", Region: a.Region}, {Key: a.Key, Region: "us-east-1"}, {Key: a.Key}, {Key: a.Key, Region: a.Region, Endpoint: "http://localhost:1"},
	} {
		if a.ID() == other.ID() {
			t.Errorf("%q is both", a.ID())
		}
	}
	const arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"
	x, y := Config{Key: arn}, Config{Key: arn, Region: "eu-central-1"}
	if x.ID() != y.ID() {
		t.Errorf("%q and %q", x.ID(), y.ID())
	}
}
