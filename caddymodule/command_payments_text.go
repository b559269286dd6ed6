package caddymodule

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// textTable is a table without lines, its columns two spaces apart.
type textTable struct {
	columns []textColumn
	rows    [][]string
	limit   int // how long a line may be; 0: as long as it is
}

// textColumn is a column that is at least width characters wide.
type textColumn struct {
	name  string
	width int
	right bool // numbers stand at the right
}

// newTable makes a table with named columns; the header has the names in capitals.
func newTable(names ...string) *textTable {
	t := new(textTable)
	for _, name := range names {
		t.columns = append(t.columns, textColumn{name: name})
	}
	return t
}

// add appends a row; there must be a cell for each column.
func (t *textTable) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// write prints the table.
func (t *textTable) write(w io.Writer, header bool) error {
	rows := t.rows
	if header {
		names := make([]string, len(t.columns))
		for i, c := range t.columns {
			names[i] = strings.ToUpper(c.name)
		}
		rows = append([][]string{names}, rows...)
	}
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = c.width
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if t.columns[i].right {
				cell = padding + cell
			} else {
				cell += padding
			}
			line.WriteString(cell + "  ")
		}
		text := []rune(strings.TrimRight(line.String(), " "))
		if t.limit > 0 && len(text) > t.limit {
			text = append(text[:t.limit-1], '…')
		}
		b.WriteString(string(text) + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}
