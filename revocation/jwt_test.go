package revocation_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"revocation-adapter/revocation"
)

// The tokens of a real API-M, long expired.
const (
	accessToken = "eyJ4NXQiOiJNell4TW1Ga09HWXdNV0kwWldObU5EY3hOR1l3WW1NNFpUQTNNV0kyTkRBelpHUXpOR00wWkdSbE5qSmtPREZrWkRSaU9URmtNV0ZoTXpVMlpHVmxOZyIsImtpZCI6Ik16WXhNbUZrT0dZd01XSTBaV05tTkRjeE5HWXdZbU00WlRBM01XSTJOREF6WkdRek5HTTBaR1JsTmpKa09ERmtaRFJpT1RGa01XRmhNelUyWkdWbE5nX1JTMjU2IiwiYWxnIjoiUlMyNTYifQ.eyJzdWIiOiJ2YWppcmEtZGV2IiwiYXV0IjoiQVBQTElDQVRJT05fVVNFUiIsImF1ZCI6IkhEZVBINFluRHdjOWtsUHRROTY3MnpGVWZYa2EiLCJuYmYiOjE2MTk4NTIyOTYsImF6cCI6IkhEZVBINFluRHdjOWtsUHRROTY3MnpGVWZYa2EiLCJzY29wZSI6InJlYWQ6cGV0cyIsImlzcyI6Imh0dHBzOlwvXC9sb2NhbGhvc3Q6OTQ0M1wvb2F1dGgyXC90b2tlbiIsImV4cCI6MTYxOTg1NTg5NiwiaWF0IjoxNjE5ODUyMjk2LCJqdGkiOiI0ZTMzMGRiZC03NWM2LTRhYjUtYTc0OS1iOTQ5N2FhMzUyMWEifQ.jUzkrljwJu77FRGswRQ1uKBRDsHswwp1oRyjh-ULOf4pZ0faxCTKO2djpBBkxVtgaiv1YKtzhaqRUV_UgCLDAgVO76G-sntSXmN5ATEohwcJfSNRHzOsfiCem-kkgO6P2TE15x7G4hlTfufIiirVlXVjcv-4s3fTVCCd-rsm7JEgb9HM-W2GV6l8-CDJ1cfzEQxSnQ7hgueO9CzhTbSnfRNZrwxZtNxXQC8LZcKfNQAzBbOlScT0qB4iJj_FgOHdIlpLANC-IFeCO6UnChztGRqccyTWUSjNuQBtN3_jCb1MQig3m7b2ZSirDygnZ09oecxxxUC2Sj1mHM5i6LCsEA"
	apiKey      = "eyJ4NXQiOiJOMkpqTWpOaU0yRXhZalJrTnpaalptWTFZVEF4Tm1GbE5qZzRPV1UxWVdRMll6YzFObVk1TlE9PSIsImtpZCI6ImdhdGV3YXlfY2VydGlmaWNhdGVfYWxpYXMiLCJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZG1pbkBjYXJib24uc3VwZXIiLCJhcHBsaWNhdGlvbiI6eyJvd25lciI6ImFkbWluIiwidGllclF1b3RhVHlwZSI6bnVsbCwidGllciI6IjEwUGVyTWluIiwibmFtZSI6Im15IiwiaWQiOjIsInV1aWQiOiI5MzkyMTM2OC1lYmRkLTQxYzEtOWI2Ny1lMzhlZmNkZmMzMjAifSwiaXNzIjoiaHR0cHM6XC9cL2FwaW06OTQ0NFwvb2F1dGgyXC90b2tlbiIsInRpZXJJbmZvIjp7IlVubGltaXRlZCI6eyJ0aWVyUXVvdGFUeXBlIjoicmVxdWVzdENvdW50IiwiZ3JhcGhRTE1heENvbXBsZXhpdHkiOjAsImdyYXBoUUxNYXhEZXB0aCI6MCwic3RvcE9uUXVvdGFSZWFjaCI6dHJ1ZSwic3Bpa2VBcnJlc3RMaW1pdCI6MCwic3Bpa2VBcnJlc3RVbml0IjpudWxsfX0sImtleXR5cGUiOiJQUk9EVUNUSU9OIiwic3Vic2NyaWJlZEFQSXMiOlt7InN1YnNjcmliZXJUZW5hbnREb21haW4iOiJjYXJib24uc3VwZXIiLCJuYW1lIjoicXFxcSIsImNvbnRleHQiOiJcL3FxcVwvMSIsInB1Ymxpc2hlciI6ImFkbWluIiwidmVyc2lvbiI6IjEiLCJzdWJzY3JpcHRpb25UaWVyIjoiVW5saW1pdGVkIn1dLCJ0b2tlbl90eXBlIjoiYXBpS2V5IiwiaWF0IjoxNjUwMzY0MjYyLCJqdGkiOiJlYzYxZDI0Zi04Nzg2LTRlYjktYmZiNy1lN2EyMGQwMjk1ZjYifQ==.M6ZiC1asUawlx73JYU83knl6vm1AG1q95DKnk-mU_59UG1yTRMJDtQn0CpHNDlTb-w9P4JGY8H5Z6l-aLUsmlyDAgIDG58_Q264jYqXleinRlOQyeAkQrPUM4DlVqM9yKOM-xLB8ZrE8feMj6-jHk6boJNtGBV1XUioJ-IQwq2MnBOII3dRbePYA7hNICmlOWaVXDOZitpihTiIl1JUHT7a_nGDiXg3b-MC14PqrdrAnqNWxih_K6oiVrlulsAaVWhRr3dmTQcsA4Eqr2N9FMHDRPeUT8MKlCpy7_SZeWX207LkwdnvWSVrV6dNPJuAWU1g8my_MYQlDDltZqKaisw=="
)

func jwt(header, payload string) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestReadJWT(t *testing.T) {
	const head = `{"alg":"RS256"}`
	tests := []struct {
		name, token string
		want        revocation.Claims
		err         error
	}{
		{"an access token of API-M", accessToken, revocation.Claims{ID: "4e330dbd-75c6-4ab5-a749-b9497aa3521a", Expiry: 1619855896000, Lifetime: revocation.Dated}, nil},
		{"a padded API key of API-M without exp", apiKey, revocation.Claims{ID: "ec61d24f-8786-4eb9-bfb7-e7a20d0295f6", Expiry: revocation.Never, Lifetime: revocation.Forever}, nil},
		{"a fraction of a second is rounded up", jwt(head, `{"jti":"a","exp":1.0001}`), revocation.Claims{ID: "a", Expiry: 1001, Lifetime: revocation.Dated}, nil},
		{"an exp beyond time is never", jwt(head, `{"jti":"a","exp":1e300}`), revocation.Claims{ID: "a", Expiry: revocation.Never, Lifetime: revocation.Forever}, nil},
		{"a null exp is none", jwt(head, `{"jti":"a","exp":null}`), revocation.Claims{ID: "a", Expiry: revocation.Never, Lifetime: revocation.Forever}, nil},
		{"no jti", jwt(head, `{"exp":1}`), revocation.Claims{}, revocation.ErrNoID},
		{"names are exact", jwt(head, `{"jti":"a","JTI":"b"}`), revocation.Claims{ID: "a", Expiry: revocation.Never, Lifetime: revocation.Forever}, nil},
		{"an empty jti", jwt(head, `{"jti":""}`), revocation.Claims{}, revocation.ErrNoID},
		{"a reserved jti", jwt(head, `{"jti":"sha256:abc"}`), revocation.Claims{}, revocation.ErrKeyReserved},
		{"an opaque token", "fc8ee897-b3d9-3bb6-a9ca-f4aeb036e5c0", revocation.Claims{}, revocation.ErrNotJWT},
		{"three words", "a.b.c", revocation.Claims{}, revocation.ErrNotJWT},
		{"a header without alg", jwt(`{}`, `{"jti":"a"}`), revocation.Claims{}, revocation.ErrNotJWT},
		{"four segments", jwt(head, `{"jti":"a"}`) + ".x", revocation.Claims{}, revocation.ErrNotJWT},
		{"too long", jwt(head, `{"jti":"a","x":"`+strings.Repeat("x", 64<<10)+`"}`), revocation.Claims{}, revocation.ErrNotJWT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := revocation.ReadJWT(tt.token)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzReadJWT(f *testing.F) {
	f.Add(accessToken)
	f.Add(apiKey)
	f.Add(jwt(`{"alg":"none"}`, `{"jti":"a","exp":-1}`))
	f.Fuzz(func(t *testing.T, token string) {
		c, err := revocation.ReadJWT(token)
		if err != nil {
			if len(token) > 8 && strings.Contains(err.Error(), token) {
				t.Errorf("the error quotes the token: %v", err)
			}
			return
		}
		if c.ID == "" || c.Expiry <= 0 || (c.Lifetime == revocation.Forever) != (c.Expiry == revocation.Never) {
			t.Errorf("read %+v", c)
		}
	})
}
