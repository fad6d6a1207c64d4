package clients_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"revocation-adapter/adapter/clients"
)

func known(t *testing.T) *clients.Registry {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	r, err := clients.New(clients.Config{Clients: []clients.Entry{{ID: "known", SecretHash: string(hash)}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whoever makes up names, one after the other, does not lock out who has one.
func TestNamesOfNobodyHoldUpNobody(t *testing.T) {
	r := known(t)
	const many = 200
	var group sync.WaitGroup
	var looked, refused atomic.Int32
	begun := make(chan struct{}, many)
	for i := range many {
		group.Go(func() {
			begun <- struct{}{}
			_, err := r.Authenticate("10.0.0.1", fmt.Sprint("nobody-", i), "guess")
			if errors.Is(err, clients.ErrWrong) {
				looked.Add(1)
			} else {
				refused.Add(1)
			}
		})
	}
	for range many {
		<-begun
	}
	if _, err := r.Authenticate("10.0.0.1", "known", "hunter2"); err != nil {
		t.Error(err)
	}
	if n := looked.Load(); n > 20 {
		t.Errorf("%d were looked at first", n)
	}
	group.Wait()
	if refused.Load() == 0 {
		t.Error("all of them were looked at")
	}
}

// One host has many addresses in its network.
func TestGuessesOfOneNetworkCountTogether(t *testing.T) {
	r := known(t)
	var last error
	for i := range 6 {
		_, last = r.Authenticate(fmt.Sprintf("2001:db8::%x", i+1), "known", "guess")
	}
	if too := (clients.TooManyError{}); !errors.As(last, &too) {
		t.Errorf("six guesses from one network: %v", last)
	}
	if _, err := r.Authenticate("2001:db8:0:1::1", "known", "hunter2"); err != nil {
		t.Errorf("from another network: %v", err)
	}
}

func TestWaitsOfAClientAreBounded(t *testing.T) {
	c := known(t).Find("known")
	var ends []func()
	for range clients.MaxWaits {
		done, ok := c.Wait()
		if !ok {
			t.Fatal("too soon")
		}
		ends = append(ends, done)
	}
	if done, ok := c.Wait(); ok {
		t.Error("there is no bound")
	} else {
		done()
	}
	ends[0]()
	if _, ok := c.Wait(); !ok {
		t.Error("who has waited still counts")
	}
}
