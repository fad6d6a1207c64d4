package main

import (
	"errors"
	"io"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/adapter/page"
	"revocation-adapter/config"
)

// signingIn is a replica as far as signing in goes, with the client ops.
func signingIn(t *testing.T) *replica {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	known, err := clients.New(clients.Config{Clients: []clients.Entry{
		{ID: "ops", SecretHash: string(hash), Roles: []string{config.RoleOperator}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	return &replica{clients: known, log: log}
}

// What stands in place of a client's id may be its secret: the audit names clients
// alone.
func TestSignInAuditNamesClientsAlone(t *testing.T) {
	r := signingIn(t)
	for id, want := range map[string]string{"ops": "ops", "hunter2": "-", "a b": "-", "": "-"} {
		if e := r.signInEntry("10.0.0.1", id, nil); e.Actor != want || e.Outcome != "refused" {
			t.Errorf("%q: %+v", id, e)
		}
	}
	if e := r.signInEntry("10.0.0.1", "ops", r.clients.Find("ops")); e.Actor != "ops" || e.Outcome != "signed_in" {
		t.Errorf("%+v", e)
	}
}

// A secret that is not looked at, after too many that were wrong, is not said to be
// wrong.
func TestSignInAfterTooManyWrongSecrets(t *testing.T) {
	r := signingIn(t)
	for range 5 {
		if _, err := r.signIn(t.Context(), "10.0.0.1", "ops", "wrong"); !errors.Is(err, clients.ErrWrong) {
			t.Fatal(err)
		}
	}
	if _, err := r.signIn(t.Context(), "10.0.0.1", "ops", "hunter2"); !errors.Is(err, page.ErrCannotTell) {
		t.Error(err)
	}
	if roles, err := r.signIn(t.Context(), "10.0.0.2", "ops", "hunter2"); err != nil || len(roles) != 1 {
		t.Error(roles, err)
	}
}
