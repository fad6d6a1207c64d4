package clients_test

import (
	"errors"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/clients"
)

func hashOf(t *testing.T, secret string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func registry(t *testing.T, cfg clients.Config) *clients.Registry {
	t.Helper()
	r, err := clients.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A client of the configuration counts before one of the hub, and one that is
// removed or has another secret is not let in any more, though it was before.
func TestClientsOfTheHubChange(t *testing.T) {
	r := registry(t, clients.Config{Clients: []clients.Entry{{ID: "both", SecretHash: hashOf(t, "file"), Roles: []string{"revoke"}}}})
	ask := func(id, secret string) error {
		_, err := r.Authenticate("10.0.0.1", id, secret)
		return err
	}
	if err := ask("late", "one"); !errors.Is(err, clients.ErrWrong) {
		t.Errorf("before it is added: %v", err)
	}
	r.Replace([]clients.Entry{{ID: "late", SecretHash: hashOf(t, "one")}, {ID: "both", SecretHash: hashOf(t, "hub"), Roles: []string{"operator"}}})
	if err := ask("late", "one"); err != nil {
		t.Errorf("added: %v", err)
	}
	if c, err := r.Authenticate("10.0.0.1", "both", "file"); err != nil || c.Has("operator") || !c.Has("revoke") {
		t.Errorf("of the configuration: %+v, %v", c, err)
	}
	if err := ask("both", "hub"); !errors.Is(err, clients.ErrWrong) {
		t.Errorf("of the hub, beside one of the configuration: %v", err)
	}
	r.Replace([]clients.Entry{{ID: "late", SecretHash: hashOf(t, "two")}})
	if err := ask("late", "one"); !errors.Is(err, clients.ErrWrong) {
		t.Errorf("with the secret of before: %v", err)
	}
	if err := ask("late", "two"); err != nil {
		t.Errorf("with the new secret: %v", err)
	}
	r.Replace(nil)
	if err := ask("late", "two"); !errors.Is(err, clients.ErrWrong) {
		t.Errorf("removed: %v", err)
	}
}

// Who guesses at a client from an address is slowed down; whoever has shown its
// secret, other clients and other addresses are not.
func TestGuessesAreSlowedDown(t *testing.T) {
	hash := hashOf(t, "right")
	r := registry(t, clients.Config{Clients: []clients.Entry{{ID: "a", SecretHash: hash}, {ID: "b", SecretHash: hash}}})
	if _, err := r.Authenticate("10.0.0.1", "a", "right"); err != nil {
		t.Fatal(err)
	}
	var slowed clients.TooManyError
	for range 8 {
		_, err := r.Authenticate("10.0.0.1", "a", "guess")
		errors.As(err, &slowed)
	}
	if slowed.Seconds == 0 {
		t.Error("nobody slows a guesser down")
	}
	for name, given := range map[string][3]string{
		"who has shown it": {"10.0.0.1", "a", "right"}, "another client": {"10.0.0.1", "b", "right"}, "another address": {"10.0.0.2", "a", "right"},
	} {
		if _, err := r.Authenticate(given[0], given[1], given[2]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	hash := hashOf(t, "right")
	r := registry(t, clients.Config{
		Limits: clients.Limits{RequestsPerSecond: 1, MaxBody: 10},
		Clients: []clients.Entry{
			{ID: "default", SecretHash: hash}, {ID: "own", SecretHash: hash, Limits: clients.Limits{RequestsPerSecond: 1000, MaxBody: 20}},
		},
	})
	allowed := map[string]int{}
	for _, id := range []string{"default", "own"} {
		for range 50 {
			if r.Find(id).Allow() {
				allowed[id]++
			}
		}
	}
	if allowed["default"] > 3 || allowed["own"] != 50 || r.Find("default").MaxBody != 10 || r.Find("own").MaxBody != 20 {
		t.Errorf("allowed %v", allowed)
	}
	first := r.Bearer(clients.Entry{ID: "x"})
	if again := r.Bearer(clients.Entry{ID: "x"}); again != first {
		t.Error("a stranger gets a new limit each time")
	}
}

func TestNewSecret(t *testing.T) {
	secret, hash, err := clients.NewSecret()
	if err != nil || len(secret) < 43 || bcrypt.CompareHashAndPassword([]byte(hash), []byte(secret)) != nil {
		t.Errorf("%q %q %v", secret, hash, err)
	}
}

// A client of the hub that changes has no more than before.
func TestWaitsAreBoundedWhileClientsChange(t *testing.T) {
	r := registry(t, clients.Config{})
	entry := clients.Entry{ID: "stored", SecretHash: "x"}
	r.Replace([]clients.Entry{entry})
	for range clients.MaxWaits {
		r.Find("stored").Wait()
	}
	entry.SecretHash = "y"
	r.Replace([]clients.Entry{entry})
	if _, ok := r.Find("stored").Wait(); ok {
		t.Error("it has begun anew")
	}
}
