// Package jwks verifies JWTs with the keys of JSON Web Key Sets, from files and
// over HTTPS.
//
// Only asymmetric algorithms are accepted. Until every source was read once,
// nothing is verified, and what a source said last stays in force while it cannot
// be read. Nothing here knows which tokens are revoked.
package jwks

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/sirupsen/logrus"

	"revocation-adapter/config/strict"
)

// Config says where the keys are, and what a token must say.
type Config struct {
	Files     []string
	URLs      []string
	TLS       *tls.Config // of the URLs; nil: the system's authorities
	Issuers   []string    // of which iss must be one; empty: any
	Audiences []string    // of which aud must hold one; empty: any
	Refresh   time.Duration
	Leeway    time.Duration
	Log       logrus.FieldLogger
	Now       func() time.Time
}

// How keys are read.
const (
	lookEvery    = time.Second      // at files
	againAfter   = 2 * time.Second  // a URL that could not be read
	askedAtMost  = 10 * time.Second // between two readings for keys that are not known
	waitForKeys  = time.Second      // of a call, for a reading that it has asked for
	fetchTimeout = 5 * time.Second
	maxKeySet    = 1 << 20 // bytes of one source
)

// Keys verifies JWTs. Any number of goroutines may use it.
type Keys struct {
	cfg     Config
	parser  *jwt.Parser
	anyTime *jwt.Parser // accepts what is not in force
	client  *http.Client
	wait    time.Duration // waitForKeys
	sources []*source
	current atomic.Pointer[keySet] // nil until every source was read

	failed atomic.Int64  // sources that could not be used when they were read last
	wanted chan struct{} // holds one request to read the URLs

	mu      sync.Mutex
	asked   time.Time     // when keys were wanted last
	pending bool          // no reading has begun since
	reading chan struct{} // closed when the URLs are read that are being read; nil: none are
	next    chan struct{} // closed when they were read the time after
}

// New returns Keys that verify nothing before Run.
func New(cfg Config) (*Keys, error) {
	if len(cfg.Files)+len(cfg.URLs) == 0 {
		return nil, errors.New("a verifier needs a source of keys")
	}
	if cfg.Refresh <= 0 {
		return nil, errors.New("a verifier needs an interval to read its keys again")
	}
	transport := &http.Transport{TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true, IdleConnTimeout: fetchTimeout}
	k := &Keys{
		cfg: cfg, client: &http.Client{Transport: transport, Timeout: fetchTimeout, CheckRedirect: noRedirect},
		wait: waitForKeys, wanted: make(chan struct{}, 1), next: make(chan struct{}),
	}
	for _, path := range cfg.Files {
		k.sources = append(k.sources, &source{name: path, load: fromFile(path), file: true})
	}
	for _, url := range cfg.URLs {
		k.sources = append(k.sources, &source{name: strict.URL(url).String(), load: fromURL(k.client, url)})
	}
	k.parser = jwt.NewParser(jwt.WithValidMethods(methods()), jwt.WithPaddingAllowed(),
		jwt.WithLeeway(cfg.Leeway), jwt.WithTimeFunc(cfg.Now))
	k.anyTime = jwt.NewParser(jwt.WithValidMethods(methods()), jwt.WithPaddingAllowed(), jwt.WithoutClaimsValidation())
	return k, nil
}

// methods are those whose keys are public.
func methods() []string {
	return []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
}

// noRedirect keeps a server from handing over to another one.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// NotReady says why tokens cannot be verified yet, "" when they can.
func (k *Keys) NotReady() string {
	if k.current.Load() == nil {
		return "the keys that verify tokens have not been read yet"
	}
	return ""
}

// Failed is how many sources could not be used when they were read last.
func (k *Keys) Failed() int { return int(k.failed.Load()) }

// ErrUndecided means that a token can be neither verified nor refuted now. With
// ErrTooSoon it is so because the keys were read just now, and are not read again
// yet for whoever names a key that is not among them.
var (
	ErrUndecided = errors.New("the token cannot be verified now")
	ErrTooSoon   = errors.New("its key is not known, and was looked for just now")
)

// The faults of a token. They quote nothing of it.
var (
	errUnknownKey = errors.New("no key is known that could have signed the token")
	errIssuer     = errors.New("the token is of another issuer")
	errAudience   = errors.New("the token is for another audience")
	errCritical   = errors.New("the token has a critical header, which is not understood")
)

// Verify returns nil for a genuine token that is in force now. A key that is not
// known is asked for, at most every ten seconds, and waited for a second. The
// error wraps ErrUndecided where no keys are there at all.
func (k *Keys) Verify(ctx context.Context, raw string) error {
	_, err := k.withKeys(ctx, func(set *keySet) error { return k.verify(raw, set) })
	return err
}

// Read verifies a token and fills in its claims, which say nothing after an error.
// When it is in force does not matter. The error wraps ErrUndecided too where the
// key may be one of a source that does not answer, or has come since the sources
// were read.
func (k *Keys) Read(ctx context.Context, raw string, claims jwt.Claims) error {
	asked, err := k.withKeys(ctx, func(set *keySet) error { return k.look(raw, keysAndClaims{set, claims}) })
	switch {
	case !errors.Is(err, errUnknownKey):
		return err
	case asked == unanswered || k.Failed() > 0:
		return fmt.Errorf("%w: %w", ErrUndecided, err)
	case asked == tooSoon:
		return fmt.Errorf("%w: %w: %w", ErrUndecided, ErrTooSoon, err)
	}
	return err
}

// look is examine for Read. A token that names no key, and that none has signed, may
// be signed by one that is not known.
func (k *Keys) look(raw string, with keysAndClaims) error {
	err := k.examine(k.anyTime, raw, with)
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) && !namesKey(raw) {
		return fmt.Errorf("%w: %w", errUnknownKey, err)
	}
	return err
}

func namesKey(raw string) bool {
	token, _, err := jwt.NewParser(jwt.WithPaddingAllowed()).ParseUnverified(raw, &jwt.MapClaims{})
	if err != nil {
		return true
	}
	_, named := token.Header["kid"].(string)
	return named
}

// withKeys looks at a token with the keys that there are, and again with those that
// come when none of them could have signed it.
func (k *Keys) withKeys(ctx context.Context, look func(*keySet) error) (reading, error) {
	set := k.current.Load()
	if set == nil {
		return answered, fmt.Errorf("%w: %s", ErrUndecided, k.NotReady())
	}
	err := look(set)
	if !errors.Is(err, errUnknownKey) {
		return answered, err
	}
	asked := k.ask(ctx)
	if now := k.current.Load(); now != set {
		return asked, look(now)
	}
	return asked, err
}

// verify looks at a signature once: computing it takes longer than all the rest.
func (k *Keys) verify(raw string, set *keySet) error {
	digest, now := sha256.Sum256([]byte(raw)), k.cfg.Now()
	if set.verified.has(digest, now) {
		return nil
	}
	claims := &jwt.RegisteredClaims{}
	if err := k.examine(k.parser, raw, keysAndClaims{set, claims}); err != nil {
		return err
	}
	var expiry time.Time
	if claims.ExpiresAt != nil {
		expiry = claims.ExpiresAt.Add(k.cfg.Leeway)
	}
	set.verified.add(digest, now, expiry)
	return nil
}

// keysAndClaims are what a token is verified with, and where its claims go.
type keysAndClaims struct {
	set    *keySet
	claims jwt.Claims
}

func (k *Keys) examine(parser *jwt.Parser, raw string, with keysAndClaims) error {
	claims := with.claims
	if _, err := parser.ParseWithClaims(raw, claims, with.set.keysFor); err != nil {
		return fmt.Errorf("verify token: %w", err)
	}
	if issuer, err := claims.GetIssuer(); len(k.cfg.Issuers) > 0 && (err != nil || !slices.Contains(k.cfg.Issuers, issuer)) {
		return errIssuer
	}
	audience, err := claims.GetAudience()
	named := func(audience string) bool { return slices.Contains(k.cfg.Audiences, audience) }
	if len(k.cfg.Audiences) > 0 && (err != nil || !slices.ContainsFunc(audience, named)) {
		return errAudience
	}
	return nil
}
