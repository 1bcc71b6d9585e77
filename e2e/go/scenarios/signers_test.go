package scenarios

import (
	"context"
	"os"
	"strings"
	"testing"

	"mpcium/e2e/client"
)

// Every form of the initiator's key file serves: hexadecimal, DER, encrypted.
func TestEveryFormOfTheInitiatorsKeySigns(t *testing.T) {
	w := theWorld(t)
	if len(w.Initiators) == 0 {
		t.Fatal("no key files were given")
	}
	for _, key := range w.Initiators {
		a := w.ask(t, key.signer(t), "forms", client.Current)
		made := a.createWallet(fresh("wallet"))
		a.sign(w, made, ed25519Request(made, key.Path))
		a.Stop()
	}
}

// The initiator's key stays in the key service; it is named by its id, its ARN and its alias, with static credentials
// and with those of the environment.
func TestAKeyServiceSigns(t *testing.T) {
	w := theWorld(t)
	if len(w.KMS.Keys) == 0 {
		t.Fatal("no keys were given")
	}
	for i, key := range w.KMS.Keys {
		options := client.KMSOptions{Region: w.KMS.Region, Endpoint: w.KMS.Endpoint, KeyID: key}
		if i == 0 {
			options.AccessKeyID, options.SecretAccessKey = "test", "test"
		} else {
			t.Setenv("AWS_ACCESS_KEY_ID", "test")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
		}
		signer, err := client.NewKMSSigner(context.Background(), options)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		a := w.ask(t, signer, "kms", client.Current)
		made := a.createWallet(fresh("wallet"))
		a.sign(w, made, ed25519Request(made, key))
		a.Stop()
	}
}

// Requests need the approvals of the required authorizers, and every approval that is given has to be good.
func TestAuthorizersApprove(t *testing.T) {
	w := theWorld(t)
	initiator := w.initiator(t)
	a := w.ask(t, initiator, "approved", client.Current)
	approve := func(name, as, id string, raw []byte) client.AuthorizerSignature {
		signature, err := initiator.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := client.AuthorizerRaw(id, raw, signature)
		if err != nil {
			t.Fatal(err)
		}
		approval, err := w.Authorizers[name].signer(t).Sign(bytes)
		if err != nil {
			t.Fatal(err)
		}
		return client.AuthorizerSignature{AuthorizerID: as, Signature: approval}
	}

	id := fresh("wallet")
	approvals := func(id string) []client.AuthorizerSignature {
		return []client.AuthorizerSignature{approve("alice", "alice", id, []byte(id)), approve("Bob", "Bob", id, []byte(id))}
	}
	made := a.createWallet(id, approvals(id)...)

	request := ed25519Request(made, "approved")
	raw, err := request.Raw()
	if err != nil {
		t.Fatal(err)
	}
	good := []client.AuthorizerSignature{approve("alice", "alice", request.TxID, raw), approve("Bob", "Bob", request.TxID, raw)}
	request.AuthorizerSignatures = good
	a.sign(w, made, request)

	for _, refused := range []struct {
		// Who signs, and in whose name.
		by, as       []string
		code, reason string
	}{
		{nil, nil, "ERROR_MISSING_AUTHORIZER_SIGNATURE", "missing required authorizer signature: alice"},
		{[]string{"alice"}, []string{"alice"}, "ERROR_MISSING_AUTHORIZER_SIGNATURE", "missing required authorizer signature: Bob"},
		{[]string{"alice", "alice"}, []string{"alice", "Bob"}, "ERROR_INVALID_AUTHORIZER_SIGNATURE", "Bob"},
		{[]string{"alice", "Bob", "alice"}, []string{"alice", "Bob", "mallory"}, "ERROR_INVALID_AUTHORIZER_SIGNATURE", "mallory"},
	} {
		other := ed25519Request(made, "refused")
		raw, err := other.Raw()
		if err != nil {
			t.Fatal(err)
		}
		for i, by := range refused.by {
			other.AuthorizerSignatures = append(other.AuthorizerSignatures, approve(by, refused.as[i], other.TxID, raw))
		}
		if err := a.SignTransaction(other); err != nil {
			t.Fatal(err)
		}
		if r := a.awaitSigned(other.TxID); r.ErrorCode != refused.code || !strings.Contains(r.ErrorReason, refused.reason) {
			t.Errorf("expected %s naming %q, got %+v", refused.code, refused.reason, r)
		}
	}

	// Approvals are for one request: those of another do not serve.
	replayed := ed25519Request(made, "replayed")
	replayed.AuthorizerSignatures = good
	if err := a.SignTransaction(replayed); err != nil {
		t.Fatal(err)
	}
	if r := a.awaitSigned(replayed.TxID); r.ErrorCode != "ERROR_INVALID_AUTHORIZER_SIGNATURE" {
		t.Errorf("approvals of another request: %+v", r)
	}
}

func TestMain(m *testing.M) {
	// Nothing of the caller's may decide which credentials are used.
	for _, name := range []string{"AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		_ = os.Unsetenv(name)
	}
	os.Exit(m.Run())
}
