package integration_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nodeUpdate is a line that node/gateway.js prints.
type nodeUpdate struct {
	Version string
	Types   []string
	Tokens  []struct {
		JTI        string
		ExpiryTime string
	}
	Ended int
}

func TestNotOnlyGo(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node")
	}
	if _, err := os.Stat(filepath.Join("node", "node_modules", "@grpc", "grpc-js")); err != nil {
		missing(t, "@grpc/grpc-js in integration/node")
	}
	a := startAdapter(t)
	a.publish(t, event("held-before", inAnHour()))
	g := connectGateway(t, a, rtds, "")
	g.awaits(t, "held-before")

	cmd := exec.CommandContext(t.Context(), node, filepath.Join("node", "gateway.js"), a.xds,
		filepath.Join("..", "resources", "proto", "revocation-adapter.binpb"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	updates := json.NewDecoder(out)
	next := func() (u nodeUpdate) {
		t.Helper()
		if err := updates.Decode(&u); err != nil {
			t.Fatalf("the client printed nothing: %v", err)
		}
		return u
	}
	if u := next(); len(u.Tokens) != 1 || u.Tokens[0].JTI != "held-before" || u.Version != g.acked() || u.Types[0] != typeURL {
		t.Errorf("the first response is %+v, want held-before at %s", u, g.acked())
	}
	a.publish(t, `{"eventId":"n","revokedToken":"never-ends","expiryTime":9223372036854775807,"type":"API_KEY"}`)
	if u := next(); len(u.Tokens) != 1 || u.Tokens[0].JTI != "never-ends" || u.Tokens[0].ExpiryTime != "9223372036854775807" {
		t.Errorf("the change is %+v, want never-ends", u)
	}
	a.signal(t, syscall.SIGTERM)
	const unavailable = 14
	if u := next(); u.Ended != unavailable {
		t.Errorf("the stream ended with %d, want UNAVAILABLE (%d)", u.Ended, unavailable)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
