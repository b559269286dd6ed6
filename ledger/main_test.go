package ledger_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// A test starts this binary again as the process that copies from one file to another, and kills it.
const (
	childFrom = "LEDGER_TEST_FROM"
	childTo   = "LEDGER_TEST_TO"
)

func TestMain(m *testing.M) {
	if from := os.Getenv(childFrom); from != "" {
		if err := childCopies(from, os.Getenv(childTo)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// childCopies prints a line when it begins, and after each part.
func childCopies(fromPath, toPath string) error {
	ctx := context.Background()
	from, err := sqlite.Open(ctx, fromPath, sqlite.Options{})
	if err != nil {
		return err
	}
	to, err := sqlite.Open(ctx, toPath, sqlite.Options{})
	if err != nil {
		return err
	}
	fmt.Println("opened")
	_, err = ledger.Copy(ctx, from, to, ledger.CopyOptions{
		PageSize: 3, Progress: func(p ledger.CopyProgress) { fmt.Println(p.Step, p.Done) },
	})
	if err != nil {
		return err
	}
	fmt.Println("done")
	if err := to.Close(); err != nil {
		return err
	}
	return from.Close()
}
