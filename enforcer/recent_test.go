package enforcer_test

import (
	"encoding/base64"
	"fmt"
	"sync"
	"testing"

	"revocation-adapter/enforcer"
	"revocation-adapter/revocation"
)

// A token that is read again is the same, however many there are: nobody gets
// another one's.
func TestParseRemembersTokens(t *testing.T) {
	e, err := enforcer.New(enforcer.Config{Adapters: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	const tokens = 5000 // more than there are places for
	texts := make([]string, tokens)
	for i := range texts {
		texts[i] = "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"jti":"t%d"}`, i)) + "."
	}
	var readers sync.WaitGroup
	for reader := range 4 {
		readers.Go(func() {
			for n := range 4 * tokens {
				i := (n*(2*reader+1) + reader) % tokens
				if n%3 == 0 {
					i %= 16 // some come often
				}
				if got, err := e.Parse(texts[i]); err != nil || got.ID != fmt.Sprint("t", i) {
					t.Errorf("token %d is read as %q, %v", i, got.ID, err)
					return
				}
			}
		})
	}
	readers.Wait()
}

// What Parse remembered of a token does not stand for one that was changed since.
func TestCheckSeesAChangedToken(t *testing.T) {
	h, c := newHub(), clockAt(epoch)
	e := start(t, configOf(c, serve(t, h)))
	reaches(t, e, h.put(tokenDigest("bad"), item{revoked: true}))
	for from, to := range map[string]string{"good": "bad", "bad": "good"} {
		token, err := e.Parse("eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"jti":%q}`, from)) + ".")
		if err != nil {
			t.Fatal(err)
		}
		token.ID = to
		if got, want := e.Check(token).Verdict == enforcer.Revoked, to == "bad"; got != want {
			t.Errorf("%s, once %s: revoked %t", to, from, got)
		}
	}
}

// A publisher chooses what a token is called; its text is what counts. Whatever
// the event said, the call is refused.
func TestTokensAreFoundUnderEveryName(t *testing.T) {
	jwt := "eyJhbGciOiJub25lIn0.eyJqdGkiOiJpZCJ9.c2ln"
	for name, tc := range map[string]struct {
		revoked revocation.Digest
		token   string
	}{
		"a JWT, as an opaque token":           {revocation.DigestOf(revocation.DomainOpaque, jwt), jwt},
		"its signature, as an opaque token":   {revocation.DigestOf(revocation.DomainOpaque, "c2ln"), jwt},
		"its signature, as a jti":             {revocation.DigestOf(revocation.DomainToken, "c2ln"), jwt},
		"its jti":                             {revocation.DigestOf(revocation.DomainToken, "id"), jwt},
		"an opaque token":                     {revocation.DigestOf(revocation.DomainOpaque, "opaque"), "opaque"},
		"an opaque API key, as that of a JWT": {revocation.DigestOf(revocation.DomainToken, "opaque"), "opaque"},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newHub(), clockAt(epoch)
			e := start(t, configOf(c, serve(t, h)))
			reaches(t, e, h.put(tc.revoked, item{revoked: true}))
			for _, parse := range []func(string) (enforcer.Token, error){e.Parse, e.Parse, enforcer.ParseToken} { // read, remembered, with all claims
				token, err := parse(tc.token)
				if err != nil {
					t.Fatal(err)
				}
				if got := e.Check(token).Verdict; got != enforcer.Revoked {
					t.Errorf("verdict %v", got)
				}
			}
		})
	}
}

// Who revokes a whole JWT as an opaque token revokes it however its signature is
// written: padding and bits that mean nothing are its bearer's to change.
func TestJWTsRevokedAsOpaqueCannotBeDisguised(t *testing.T) {
	const bare = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJpZCJ9.c2k"
	forms := []string{bare, bare + "=", bare + "==", disguised(bare)}
	for _, revoked := range forms[:2] {
		e := holding(t, revocation.DomainOpaque, revoked)
		for _, form := range forms {
			token, err := e.Parse(form)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Check(token).Verdict; got != enforcer.Revoked {
				t.Errorf("%q, revoked as %q: verdict %v", form, revoked, got)
			}
		}
	}
}
