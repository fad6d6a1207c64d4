package stack

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Issuer signs tokens as a control plane does.
type Issuer struct {
	Name   string
	method jwt.SigningMethod
	key    crypto.Signer
	keyID  string
}

const issuerName = "https://localhost:9443/oauth2/token"

// NewIssuer returns an issuer with a new key, for ES256.
func NewIssuer(keyID string) (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &Issuer{issuerName, jwt.SigningMethodES256, key, keyID}, err
}

// NewRSAIssuer returns an issuer that signs by RS256, as API-M does.
func NewRSAIssuer(keyID string) (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &Issuer{issuerName, jwt.SigningMethodRS256, key, keyID}, err
}

// WriteKeys writes the issuer's public key as a JWKS.
func (i *Issuer) WriteKeys(path string) error {
	key, err := jwkset.NewJWKFromKey(i.key.Public(), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(i.method.Alg()), KID: i.keyID, USE: jwkset.UseSig},
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{key.Marshal()}})
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Sign makes a token of claims, as they are.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	t := jwt.NewWithClaims(i.method, jwt.MapClaims(claims))
	t.Header["kid"] = i.keyID
	return t.SignedString(i.key)
}

// AccessToken is one as API-M issues it, of an hour; other claims come on top.
func (i *Issuer) AccessToken(jti string, others map[string]any) (string, error) {
	now := time.Now()
	claims := map[string]any{
		"iss": i.Name, "aud": "client-1", "azp": "client-1", "sub": "alice", "scope": "default",
		"nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": jti,
	}
	maps.Copy(claims, others)
	return i.Sign(claims)
}

// APIKey is one as API-M issues it: without an expiry, in padded base64url.
func (i *Issuer) APIKey(jti string) (string, error) {
	signed, err := padded(map[string]any{"typ": "JWT", "alg": i.method.Alg(), "kid": i.keyID}, map[string]any{
		"sub": "alice@carbon.super", "iss": i.Name, "keytype": "PRODUCTION", "token_type": "apiKey",
		"application": map[string]any{"owner": "alice", "uuid": "b7a1c6a3-6e5c-4b6d-9d0f-2f2a4c9f1e10", "name": "app"},
		"iat":         time.Now().Unix(), "jti": jti,
	})
	if err != nil {
		return "", err
	}
	signature, err := i.method.Sign(signed, i.key)
	return signed + "." + base64.URLEncoding.EncodeToString(signature), err
}

// padded is what is signed of a JWT with padded segments.
func padded(header, claims map[string]any) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	return base64.URLEncoding.EncodeToString(h) + "." + base64.URLEncoding.EncodeToString(c), err
}
