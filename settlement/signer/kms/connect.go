package kms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

const (
	// tries is how often the service is asked for one thing, within the timeout.
	tries = 3
	// maxAnswer is how much of an answer is read, in bytes; KMS sends less than a kilobyte.
	maxAnswer = 64 << 10
	// basePause is the longest pause before the second try; it doubles.
	basePause = 100 * time.Millisecond
)

// connect makes the service's client. It asks nobody; files of AWS' SDK are read.
func connect(ctx context.Context, c Config) (*awskms.Client, *limitedClient, error) {
	options := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if r := c.where(); r != "" {
		options = append(options, config.WithRegion(r))
	}
	if c.AccessKeyID != "" {
		static := credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
		options = append(options, config.WithCredentialsProvider(static))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: reading the configuration of AWS' SDK: %w", ErrConfig, err)
	}
	if cfg.Region == "" {
		return nil, nil, fmt.Errorf("%w: the region of %s is not known; name it, give the key's ARN, or set AWS_REGION", ErrConfig, c.Key)
	}
	limited := newLimitedClient(cfg.HTTPClient, c.Timeout/tries)
	return awskms.NewFromConfig(cfg, func(o *awskms.Options) {
		o.HTTPClient = limited
		o.Retryer, o.RetryMaxAttempts = newRetryer(c.pause), tries
		if o.Credentials != nil {
			o.Credentials = markedCredentials{o.Credentials}
		}
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
	}), limited, nil
}

// limitedClient is the SDK's HTTP client (proxies, authorities) with an end to each try and to each answer, and which
// follows no redirect.
type limitedClient struct{ http.Client }

func newLimitedClient(sdk aws.HTTPClient, timeout time.Duration) *limitedClient {
	buildable, ok := sdk.(*awshttp.BuildableClient)
	if !ok {
		buildable = awshttp.NewBuildableClient()
	}
	return &limitedClient{http.Client{
		Transport: buildable.GetTransport(), Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Do implements aws.HTTPClient.
func (c *limitedClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.Client.Do(r) //nolint:gosec // the operator says where the service is
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

func newRetryer(pause func(try int) time.Duration) aws.Retryer {
	if pause == nil {
		pause = func(try int) time.Duration { return rand.N(basePause << min(max(try-1, 0), 5)) } //nolint:gosec // no secret
	}
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = tries
		o.RateLimiter = ratelimit.None // tries are few, and who needs a signature has a pace of its own
		o.Backoff = retry.BackoffDelayerFunc(func(try int, _ error) (time.Duration, error) { return pause(try), nil })
		o.Retryables = append(o.Retryables, retry.IsErrorRetryableFunc(garbled))
	})
}

// garbled lets an answer that can't be read be asked for again: neither operation changes anything.
func garbled(err error) aws.Ternary {
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// credentialsError says that there are no credentials, of which the SDK's errors tell nothing by their type.
type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }

type markedCredentials struct{ aws.CredentialsProvider }

// Retrieve implements aws.CredentialsProvider.
func (m markedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := m.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	return c, nil
}
