package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"

	"bizra.io/cluster/internal/layout"
)

func TestClusterCertificates(t *testing.T) {
	place := layout.Layout{Dir: t.TempDir()}
	addresses, err := layout.ChooseAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteCluster(place, addresses); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	authority := readFile(t, place.Certificate("ca"))
	roots.AppendCertsFromPEM(authority)
	for name, request := range requests(addresses) {
		pair, err := tls.LoadX509KeyPair(place.Certificate(name), place.Key(name))
		if err != nil {
			t.Fatalf("%s: certificate and key do not match: %v", name, err)
		}
		certificate := pair.Leaf
		usage := x509.ExtKeyUsageClientAuth
		if len(request.Names) > 0 {
			usage = x509.ExtKeyUsageServerAuth
		}
		for _, host := range append([]string{""}, request.Names...) {
			options := x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}}
			if _, err := certificate.Verify(options); err != nil {
				t.Errorf("%s for %q: %v", name, host, err)
			}
		}
		for _, address := range request.Addresses {
			if err := certificate.VerifyHostname(address.String()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if certificate.Subject.CommonName != request.User {
			t.Errorf("%s: user is %s, want %s", name, certificate.Subject.CommonName, request.User)
		}
	}
	// A second run must keep what a running cluster trusts.
	if err := WriteCluster(place, addresses); err != nil {
		t.Fatal(err)
	}
	if string(readFile(t, place.Certificate("ca"))) != string(authority) {
		t.Error("the authority was made anew")
	}
	if information, err := os.Stat(place.Key("admin")); err != nil || information.Mode().Perm() != 0o600 {
		t.Errorf("private keys are for root only: %v, %v", information.Mode(), err)
	}
}

func TestFrontProxyHasItsOwnAuthority(t *testing.T) {
	place := layout.Layout{Dir: t.TempDir()}
	addresses, err := layout.ChooseAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteCluster(place, addresses); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(place.Certificate("front-proxy"), place.Key("front-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	for authority, trusted := range map[string]bool{"front-proxy-ca": true, "ca": false} {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(readFile(t, place.Certificate(authority)))
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != trusted {
			t.Errorf("trusted by %s: %v, want %v", authority, err == nil, trusted)
		}
	}
}

func TestSignerIsAKeyPair(t *testing.T) {
	signer, err := NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pem.Decode(signer.Certificate)
	private, _ := pem.Decode(signer.Key)
	if public == nil || public.Type != "PUBLIC KEY" || private == nil || private.Type != "EC PRIVATE KEY" {
		t.Fatalf("got %v and %v", public, private)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
