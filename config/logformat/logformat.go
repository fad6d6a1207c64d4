// Package logformat is the log of a process, as operators of Choreo Connect know
// it.
package logformat

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
)

// operatorFormat prints entries as operators of Choreo Connect know them:
//
//	2021-05-01 07:20:57 INFO [server.go:1315] - [xds.Update] [-] message [key=value …]
type operatorFormat struct{}

// New returns a logger that finds the caller of each entry by itself.
func New(out io.Writer, level string) (*logrus.Logger, error) {
	l, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	log := logrus.New()
	log.SetOutput(out)
	log.SetLevel(l)
	log.SetReportCaller(true)
	log.SetFormatter(operatorFormat{})
	return log, nil
}

// Format implements logrus.Formatter.
func (operatorFormat) Format(e *logrus.Entry) ([]byte, error) {
	b := e.Buffer
	if b == nil {
		b = &bytes.Buffer{}
	}
	b.Write(e.Time.AppendFormat(b.AvailableBuffer(), "2006-01-02 15:04:05"))
	b.WriteByte(' ')
	b.WriteString(levelName(e.Level))
	b.WriteString(" [")
	if e.Caller != nil {
		b.WriteString(path.Base(e.Caller.File))
		b.WriteByte(':')
		b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(e.Caller.Line), 10))
		b.WriteString("] - [")
		b.WriteString(functionName(e.Caller.Function))
	} else {
		b.WriteString("-] - [-")
	}
	b.WriteString("] [-] ")
	b.WriteString(oneLine(e.Message))
	b.WriteString(" [")
	writeFields(b, e.Data)
	b.WriteString("]\n")
	return b.Bytes(), nil
}

func levelName(l logrus.Level) string {
	switch l {
	case logrus.PanicLevel:
		return "PANC"
	case logrus.FatalLevel:
		return "FATL"
	case logrus.ErrorLevel:
		return "ERRO"
	case logrus.WarnLevel:
		return "WARN"
	case logrus.InfoLevel:
		return "INFO"
	case logrus.DebugLevel, logrus.TraceLevel:
	}
	return "DEBG"
}

// functionName is package.function: without the path, a method's receiver, and
// the names that the compiler gives to closures.
func functionName(full string) string {
	pkg, rest, _ := strings.Cut(path.Base(full), ".")
	if strings.HasPrefix(rest, "(") {
		if _, method, ok := strings.Cut(rest, ")."); ok {
			rest = method
		}
	}
	parts := strings.Split(rest, ".")
	for len(parts) > 1 && closure(parts[len(parts)-1]) {
		parts = parts[:len(parts)-1]
	}
	return pkg + "." + parts[len(parts)-1]
}

func closure(name string) bool {
	name = strings.TrimPrefix(name, "gowrap")
	name = strings.TrimPrefix(name, "func")
	return strings.Trim(name, "0123456789-") == ""
}

func writeFields(b *bytes.Buffer, fields logrus.Fields) {
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(k)
		b.WriteByte('=')
		b.WriteString(fieldValue(fields[k]))
	}
}

// fieldValue quotes what could be taken for something else.
func fieldValue(v any) string {
	s := fmt.Sprint(v)
	if s == "" || strings.ContainsAny(s, " \"=[]") || oneLine(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// oneLine keeps what came from outside from beginning a line of its own.
func oneLine(s string) string {
	clean := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' }
	if strings.IndexFunc(s, clean) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
