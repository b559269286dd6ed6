// Package sqlstore is what the stores in SQL databases share: the tables, the statements in the SQL that SQLite and
// PostgreSQL both read, how values are kept in columns, and what only reads. How they connect, lock and commit
// is each store's own.
package sqlstore

import (
	"embed"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// ErrSchema: what the database holds is no ledger that this version can use: it is damaged, not a ledger at all, or was
// written by a newer version.
var ErrSchema = errors.New("ledger: the database can't be used as a ledger")

// Row is a row of a result: of database/sql or of pgx.
type Row interface {
	Scan(dest ...any) error
}

// Query runs a statement with ? for its arguments, and has scan read each row. Each store brings its own.
type Query func(query string, scan func(Row) error, args ...any) error

// Numbered is the query with the placeholders of PostgreSQL, $1 and so on, in place of question marks. No
// statement here has a question mark that is none.
func Numbered(query string) string {
	parts := strings.Split(query, "?")
	var b strings.Builder
	b.WriteString(parts[0])
	for i, part := range parts[1:] {
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(i + 1))
		b.WriteString(part)
	}
	return b.String()
}

//go:embed migrations/*.sql
var tables embed.FS

// Migrations are the files of the tables together with those of one store, for goose. The tables are 00001;
// the store's own count from 00002. What was published stays as it is: whatever changes is another file.
func Migrations(own fs.FS) (fs.FS, error) {
	shared, err := fs.Sub(tables, "migrations")
	if err != nil {
		return nil, err
	}
	return union{shared, own}, nil
}

// union shows the files of several directories as those of one.
type union []fs.FS

func (u union) Open(name string) (fs.File, error) {
	for _, dir := range u {
		f, err := dir.Open(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Glob implements fs.GlobFS.
func (u union) Glob(pattern string) ([]string, error) {
	var all []string
	for _, dir := range u {
		names, err := fs.Glob(dir, pattern)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return all, nil
}
