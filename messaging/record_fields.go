package messaging

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// recordFields walks over the fields of a protobuf message. After a fault
// nothing more comes, and broken is set.
type recordFields struct {
	data   []byte
	number protowire.Number
	typ    protowire.Type
	broken bool
}

// next moves on to the next field and says whether there is one. Its value must
// be read, by the method of its type, or skipped.
func (f *recordFields) next() bool {
	if f.broken || len(f.data) == 0 {
		return false
	}
	var n int
	f.number, f.typ, n = protowire.ConsumeTag(f.data)
	if f.number > protowire.MaxValidNumber {
		n = -1
	}
	return f.advance(n)
}

// advance moves n bytes on; a negative n is a fault.
func (f *recordFields) advance(n int) bool {
	if n < 0 {
		f.broken, f.data = true, nil
		return false
	}
	f.data = f.data[n:]
	return true
}

func (f *recordFields) varint() uint64 {
	if f.typ != protowire.VarintType {
		f.advance(-1)
		return 0
	}
	v, n := protowire.ConsumeVarint(f.data)
	f.advance(n)
	return v
}

func (f *recordFields) bytes() []byte {
	if f.typ != protowire.BytesType {
		f.advance(-1)
		return nil
	}
	v, n := protowire.ConsumeBytes(f.data)
	f.advance(n)
	return v
}

func (f *recordFields) text() string {
	v := f.bytes()
	if !utf8.Valid(v) {
		f.advance(-1)
		return ""
	}
	return string(v)
}

func (f *recordFields) skip() {
	f.advance(protowire.ConsumeFieldValue(f.number, f.typ, f.data))
}
