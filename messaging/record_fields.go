package messaging

import (
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// recordFields walks over the fields of a protobuf message. After a fault
// nothing more comes, and broken is set.
type recordFields struct {
	whole  string // the message, in data's memory; what is text in it is a part of it
	data   []byte // what is left of it
	number protowire.Number
	typ    protowire.Type
	broken bool
}

// fieldsOf walks over data, which nobody may change as long as a text of it lives.
func fieldsOf(data []byte) recordFields {
	return recordFields{whole: unsafe.String(unsafe.SliceData(data), len(data)), data: data}
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
	return f.before(v)
}

// before returns the text of v, which has just been read.
func (f *recordFields) before(v []byte) string {
	end := len(f.whole) - len(f.data)
	return f.whole[end-len(v) : end]
}

// message returns the fields of a message within this one.
func (f *recordFields) message() recordFields {
	v := f.bytes()
	if f.broken {
		return recordFields{broken: true}
	}
	return recordFields{whole: f.before(v), data: v}
}

func (f *recordFields) skip() {
	f.advance(protowire.ConsumeFieldValue(f.number, f.typ, f.data))
}
