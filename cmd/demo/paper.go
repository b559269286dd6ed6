package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	width  = 92 // of a line of text
	indent = "   "
	names  = 17 // width of the column of names
)

// paper is what the story is written on. Claims are checked as they are written.
type paper struct {
	out    io.Writer
	colour bool

	steps  int
	claims int
	wrong  []string // claims of the current step that don't hold
	err    error    // the first that writing gave
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	green = "\x1b[32m"
	red   = "\x1b[31m"
	blue  = "\x1b[34m"
)

func (p *paper) paint(style, s string) string {
	if !p.colour {
		return s
	}
	return style + s + "\x1b[0m"
}

func (p *paper) line(s string) {
	if _, err := fmt.Fprintln(p.out, s); err != nil && p.err == nil {
		p.err = fmt.Errorf("writing: %w", err)
	}
}

// begin writes the heading of the next step.
func (p *paper) begin(title string) {
	p.steps++
	p.wrong = nil
	p.line("")
	p.line(p.paint(bold+blue, fmt.Sprintf("%d. %s", p.steps, title)))
}

// say writes text, wrapped.
func (p *paper) say(format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	for _, l := range wrap(text, width-len(indent)) {
		p.line(strings.TrimRight(indent+l, " "))
	}
}

func (p *paper) strong(text string) { p.line(p.paint(bold, text)) }

// field writes a name and what it is.
func (p *paper) field(name, format string, args ...any) {
	p.line(indent + p.paint(dim, fmt.Sprintf("%-*s", names, name)) + " " + fmt.Sprintf(format, args...))
}

// code writes text as it is, apart from the story.
func (p *paper) code(text string) {
	for l := range strings.Lines(strings.TrimRight(text, "\n")) {
		l = strings.ReplaceAll(strings.TrimRight(l, "\n"), "\t", "    ")
		p.line(strings.TrimRight(indent+p.paint(dim, "| ")+l, " "))
	}
}

// check writes a claim with a mark that says whether it holds.
func (p *paper) check(ok bool, format string, args ...any) {
	claim := fmt.Sprintf(format, args...)
	p.claims++
	mark, style := "✓ ", green
	if !ok {
		mark, style = "✗ ", red
		p.wrong = append(p.wrong, claim)
	}
	for i, l := range wrap(claim, width-len(indent)-2) {
		if i > 0 {
			mark = "  "
		}
		p.line(indent + p.paint(style, mark) + l)
	}
}

// same checks that two things are equal, and tells both where they are not.
func same[T comparable](p *paper, claim string, got, want T) {
	if got != want {
		claim = fmt.Sprintf("%s: it is %v, and should be %v", claim, got, want)
	}
	p.check(got == want, "%s", claim)
}

// end gives the claims of the step that don't hold as an error.
func (p *paper) end() error {
	if len(p.wrong) == 0 {
		return p.err
	}
	return fmt.Errorf("step %d does not hold: %s", p.steps, strings.Join(p.wrong, "; "))
}

// wrap breaks text into lines of at most n characters where it can.
func wrap(text string, n int) []string {
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for word := range strings.FieldsSeq(paragraph) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > n:
				lines = append(lines, line)
				line = word
			default:
				line += " " + word
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// brief shows the beginning and the end of something long.
func brief(s string, n int) string {
	if len(s) <= n {
		return s
	}
	tail := n / 4
	return s[:n-tail-1] + "…" + s[len(s)-tail:]
}
