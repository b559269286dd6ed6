package kms

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/ethereum/go-ethereum/common"
)

// ErrConfig says that the key can't sign as things are configured, here or at AWS: trying again does not help before
// somebody has changed something. The text says what.
var ErrConfig = errors.New("kms: the key can't be used")

// Config says which key signs, and how the service is reached.
type Config struct {
	// Key is the key's id, its ARN, its alias (alias/gas) or the alias' ARN.
	Key string
	// Region is the key's region. By default it is that of Key's ARN, or else the environment's (AWS_REGION, the profile).
	Region string
	// Endpoint is the service's address where it is not the region's usual one, such as that of an endpoint in a VPC.
	Endpoint string
	// AccessKeyID and SecretAccessKey are the credentials, for temporary ones with SessionToken. By default they are what AWS'
	// SDK finds: the environment's, a profile's, the machine's role.
	AccessKeyID, SecretAccessKey, SessionToken string
	// Address is the account that the key must have, if it is not zero.
	Address common.Address
	// Timeout is how long a signature may take, with all tries. Default: 10 s.
	Timeout time.Duration

	pause func(try int) time.Duration // between two tries
}

const defaultTimeout = 10 * time.Second

// keyID finds what KMS takes for the id of a key, or for an alias.
var keyID = regexp.MustCompile(`^(alias/[A-Za-z0-9/_-]{1,250}|[A-Za-z0-9-]{1,256})$`)

// keyResource finds a key or an alias in an ARN.
var keyResource = regexp.MustCompile(`^(alias/[A-Za-z0-9/_-]{1,250}|key/[A-Za-z0-9-]{1,256})$`)

var region = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// Validate finds the mistakes that can be found without asking anybody. Errors wrap ErrConfig and show no secret.
func (c Config) Validate() error {
	if err := c.checkKey(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := c.checkEndpoint(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	switch {
	case (c.AccessKeyID == "") != (c.SecretAccessKey == ""):
		return fmt.Errorf("%w: an access key has an id and a secret; give both, or none and let AWS' SDK find the credentials", ErrConfig)
	case c.SessionToken != "" && c.AccessKeyID == "":
		return fmt.Errorf("%w: a session token is nothing without an access key", ErrConfig)
	case c.Timeout < 0:
		return fmt.Errorf("%w: the timeout is negative", ErrConfig)
	}
	return nil
}

func (c Config) checkKey() error {
	if c.Key == "" {
		return errors.New("no key is named; give its id, its ARN or its alias")
	}
	if c.Region != "" && !region.MatchString(c.Region) {
		return fmt.Errorf("the region %q is none; write one such as eu-central-1", c.Region)
	}
	if !arn.IsARN(c.Key) {
		if !keyID.MatchString(c.Key) {
			return fmt.Errorf("%q is no key's id, ARN or alias (alias/…)", c.Key)
		}
		return nil
	}
	a, err := arn.Parse(c.Key)
	if err != nil || a.Service != "kms" || !keyResource.MatchString(a.Resource) || !region.MatchString(a.Region) {
		return fmt.Errorf("%q is not the ARN of a KMS key or alias", c.Key)
	}
	if c.Region != "" && c.Region != a.Region {
		return fmt.Errorf("the region is %s, but the key's ARN says %s", c.Region, a.Region)
	}
	return nil
}

// checkEndpoint refuses what would send the session token over a network in the open.
func (c Config) checkEndpoint() error {
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("the endpoint is no address such as https://kms.eu-central-1.amazonaws.com")
	}
	if u.Scheme == "http" && !c.Loopback() {
		return errors.New("the endpoint must have https, unless it is on this machine")
	}
	return nil
}

// Loopback reports whether the service is said to be on this machine.
func (c Config) Loopback() bool {
	u, err := url.Parse(c.Endpoint)
	if err != nil || c.Endpoint == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// where is the region to ask, or "" if the environment has to say.
func (c Config) where() string {
	if c.Region != "" {
		return c.Region
	}
	a, err := arn.Parse(c.Key)
	if err != nil {
		return ""
	}
	return a.Region
}

// ID names the key for whoever keeps one signer per key. Two names of a key at AWS have two IDs.
func (c Config) ID() string {
	id := "aws_kms " + c.Key
	if r := c.where(); r != "" {
		id += " in " + r
	}
	if c.Endpoint != "" {
		id += " at " + c.Endpoint
	}
	return id
}

// String is ID: no Config shows its credentials.
func (c Config) String() string { return c.ID() }

// Format is String, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON is String.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }
