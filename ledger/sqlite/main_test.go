package sqlite_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The tests start this binary again as another process; then it does only what that is for.
func TestMain(m *testing.M) {
	if task := os.Getenv(childTask); task != "" {
		child(task, os.Getenv(childPath))
		return
	}
	goleak.VerifyTestMain(m)
}
