package sqlite

import (
	"context"
	"time"
)

// WithStep has every statement of the writer run by step.
func WithStep(o Options, step func(statement func())) Options {
	o.step = step
	return o
}

// Exec runs a statement on the writer's connection.
func (s *Store) Exec(query string) error {
	_, err := write(context.Background(), s, func(w *writer) (int64, error) { return w.exec(query) })
	return err
}

// SetPatience shortens the wait for a disk that does not answer.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }
