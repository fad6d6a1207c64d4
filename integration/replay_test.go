package integration_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	revocationv1 "revocation-adapter/resources/proto/revocation/v1"
	"revocation-adapter/revocation"
)

// operator is a connection that may write what it likes.
func (a *adapter) operator(t *testing.T) *nats.Conn {
	t.Helper()
	key, err := nats.NkeyOptionFromSeed(filepath.Join(a.dir, "hub", "operator.nk"))
	if err != nil {
		t.Fatal(err)
	}
	return a.connect(t, key)
}

// store writes the record of an approved opaque token; without a lifetime it is
// damaged.
func store(t *testing.T, conn *nats.Conn, digest revocation.Digest, lifetime revocationv1.Lifetime) {
	t.Helper()
	data, err := proto.Marshal(&revocationv1.Record{
		Format: 1, Domain: revocationv1.Domain_DOMAIN_OPAQUE, Digest: digest[:], State: revocationv1.State_STATE_APPROVED,
		ExpiryMillis: inAnHour().UnixMilli(), Lifetime: lifetime, TimeMicros: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Request("revoked.opaque."+digest.String(), data, patience); err != nil {
		t.Fatal(err)
	}
}

// deadLetters waits until there are n, and returns their numbers.
func (a *adapter) deadLetters(t *testing.T, n int) (numbers []string) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " dead letters"), func() bool {
		_, list, _ := a.run(t, "deadletter", "list")
		lines := strings.Split(strings.TrimSpace(list), "\n")
		numbers = nil
		for _, line := range lines[1:] {
			numbers = append(numbers, strings.Fields(line)[0])
		}
		return len(numbers) == n
	})
	return numbers
}

// expect runs a command and compares.
func (a *adapter) expect(t *testing.T, wantCode int, want string, args ...string) {
	t.Helper()
	code, out, errOut := a.run(t, append([]string{"deadletter"}, args...)...)
	if code != wantCode || !strings.Contains(out+errOut, want) {
		t.Errorf("%v: exit %d, want %d and %q: %s%s", args, code, wantCode, want, out, errOut)
	}
}

func TestReplay(t *testing.T) {
	const secret = "opaque-7f3c1b9e-replayed"
	a := newAdapter(t, map[string]string{"rest": "[ingest]\nmax_deliveries = 1\n"})
	a.start(t)
	a.awaitReady(t)
	g, operator := connectGateway(t, a, delta, ""), a.operator(t)

	// An event that could not be stored, until its record was mended.
	digest := revocation.DigestOf(revocation.DomainOpaque, secret)
	store(t, operator, digest, 0)
	a.publish(t, `{"eventId":"1","revokedToken":"`+secret+`","expiryTime":0,"type":"Default"}`)
	numbers := a.deadLetters(t, 1)
	a.expect(t, 0, revocation.NamePrefix+digest.String(), "show", numbers[0])
	store(t, operator, digest, revocationv1.Lifetime_LIFETIME_DATED)
	a.expect(t, 0, "Replayed "+numbers[0]+" (stored as ", "replay", numbers[0])
	g.awaits(t, revocation.NamePrefix+digest.String())
	a.deadLetters(t, 0)

	// Two that are not understood the second time either, and one too large to keep.
	a.publish(t, `{"eventId":"2","revokedToken":"dead-jti-1","expiryTime":-5,"type":"JWT"}`)
	a.publish(t, `{"eventId":"3","revokedToken":"dead-jti-2","expiryTime":-5,"type":"JWT"}`)
	a.deadLetters(t, 2)
	if err := operator.Publish("tokenRevocation", []byte(strings.Repeat("x", 1<<20))); err != nil {
		t.Fatal(err)
	}
	numbers = a.deadLetters(t, 3)
	a.expect(t, 1, "only the beginning of the event is kept; have it published again, then 'adapter deadletter purge "+numbers[2]+"'",
		"replay", "--all")
	a.expect(t, 4, "no such dead letter: "+numbers[0], "replay", numbers[0])
	left := a.deadLetters(t, 3)
	if left[0] != numbers[2] || left[1] == numbers[0] || left[2] == numbers[1] {
		t.Errorf("dead letters %v were replayed, %v are left", numbers, left)
	}

	a.expect(t, 0, "Purged "+left[0], "purge", left[0])
	a.expect(t, 4, "no such dead letter: "+left[0], "purge", left[0])
	a.expect(t, 0, "Dead letters purged: 0", "purge", "--all", "--older-than", "24h")
	a.expect(t, 0, "Dead letters purged: 2", "purge", "--all")
	a.expect(t, 0, "No dead letters.", "replay", "--all")
	if strings.Contains(a.log.String(), secret) {
		t.Error("the log names the token")
	}
}
