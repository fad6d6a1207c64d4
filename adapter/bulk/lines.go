package bulk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"revocation-adapter/revocation"
)

// Format says how lines are read: a token, and after white space or a comma the
// time at which it expires, if that is known.
type Format struct {
	Type      string                      // of all tokens, as messaging names it
	Tenant    string                      // whose they all are; empty: nobody's
	Expiry    int64                       // of tokens whose line names none, milliseconds since the epoch; 0: their own
	ParseTime func(string) (int64, error) // returns milliseconds since the epoch
}

// maxLine is how long a line may be, in bytes: the longest JWT, and a time.
const maxLine = 65<<10 + 64

var (
	errLong    = errors.New("it is longer than 65 KiB")
	errColumns = errors.New("it has more than a token and a time")
	errText    = errors.New("it is not UTF-8")
	errQuoted  = errors.New("it has a quotation mark, which no token has")
)

// line is one line of a file, or what is left of one that is too long.
type line struct {
	number int    // from 1
	raw    []byte // with its end; valid until the next
	end    int64  // offset of what follows
	blank  bool   // there is nothing to read in it
	token  Token
	err    error // why it is no token; never quotes it
}

// reader reads the lines that follow a position.
type reader struct {
	format Format
	from   *bufio.Reader
	last   Position
	rest   bool // what comes is the rest of a line that is too long
}

func newReader(r io.Reader, f Format, from Position) *reader {
	return &reader{format: f, from: bufio.NewReaderSize(r, maxLine), last: from}
}

// lines returns each line. An error is the last.
func (r *reader) lines() iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		for {
			l, err := r.next()
			if errors.Is(err, io.EOF) || !yield(l, err) || err != nil {
				return
			}
		}
	}
}

// next returns io.EOF when there is no more.
func (r *reader) next() (line, error) {
	raw, err := r.from.ReadSlice('\n')
	cut := errors.Is(err, bufio.ErrBufferFull)
	switch {
	case len(raw) == 0 && errors.Is(err, io.EOF):
		return line{}, io.EOF
	case err != nil && !cut && !errors.Is(err, io.EOF):
		return line{}, fmt.Errorf("read line %d: %w", r.last.Lines+1, err)
	}
	r.last.Offset += int64(len(raw))
	rest := r.rest
	if r.rest = cut; !rest {
		r.last.Lines++
	}
	l := line{number: r.last.Lines, raw: raw, end: r.last.Offset}
	switch {
	case rest:
		l.blank = true
	case cut:
		l.err = errLong
	default:
		l.read(r.format)
	}
	return l, nil
}

// read understands a line.
func (l *line) read(f Format) {
	text := l.raw
	if l.number == 1 {
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
	}
	columns := strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" \t\r\n,", r) })
	switch {
	case len(columns) == 0:
		l.blank = true
	case len(columns) > 2:
		l.err = errColumns
	case !utf8.Valid(text): // JSON would make another token of it
		l.err = errText
	case bytes.ContainsRune(text, '"'):
		l.err = errQuoted
	default:
		l.token, l.err = f.token(columns)
	}
}

// token reads a token and its time: of the line, or else of all, or else its own.
func (f Format) token(columns []string) (Token, error) {
	t, err := ReadToken(columns[0], f.Type)
	if err != nil {
		return Token{}, err
	}
	switch {
	case len(columns) == 2:
		t.Expiry, err = f.expiry(columns[1])
	case f.Expiry != 0:
		t.Expiry = f.Expiry
	}
	return t, err
}

// expiry reads the second column. Its error does not quote it: it may be a token
// that was cut in two.
func (f Format) expiry(text string) (int64, error) {
	if text == "never" {
		return revocation.Never, nil
	}
	ms, err := f.ParseTime(text)
	if err != nil {
		return 0, fmt.Errorf("its second column must be %w, or never", err)
	}
	return ms, nil
}
