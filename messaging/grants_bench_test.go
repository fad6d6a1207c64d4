package messaging_test

import (
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"

	"revocation-adapter/messaging"
)

// BenchmarkGrants measures, at an embedded hub that syncs: a lookup where nothing
// was ever put, a grant, and a lookup of one.
func BenchmarkGrants(b *testing.B) {
	cfg := config()
	cfg.Embedded = &messaging.EmbeddedConfig{Listen: "127.0.0.1:0", Store: filepath.Join(b.TempDir(), "hub")}
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	cfg.Log = quiet
	hub, err := messaging.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(hub.Close)
	grants := messaging.NewGrants(hub)
	digest := messaging.RefreshDigest("refresh-0")
	b.Run("lookup in an empty registry", func(b *testing.B) {
		for range b.N {
			_, _ = grants.Refresh(b.Context(), digest) // there is none
		}
	})
	fail := func(b *testing.B, err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	fail(b, grants.Put(b.Context(), jwtGrant("jti-0", "refresh-0")))
	b.Run("lookup", func(b *testing.B) {
		for range b.N {
			_, err := grants.Refresh(b.Context(), digest)
			fail(b, err)
		}
	})
	b.Run("put", func(b *testing.B) {
		for i := range b.N {
			fail(b, grants.Put(b.Context(), jwtGrant(fmt.Sprint("jti-", b.N, i), fmt.Sprint("refresh-", b.N, i))))
		}
	})
	b.Run("put by 32", func(b *testing.B) {
		b.SetParallelism(16) // times two processors
		var next atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := next.Add(1)
				if err := grants.Put(b.Context(), jwtGrant(fmt.Sprint("many-", b.N, i), fmt.Sprint("many-", b.N, i))); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
