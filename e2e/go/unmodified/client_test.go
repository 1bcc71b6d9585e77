package unmodified

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fystack/mpcium/pkg/client"
	"github.com/fystack/mpcium/pkg/types"
)

// Both curves, child keys, texts that are shorter than a digest, leading zero bytes, ids that JSON escapes.
func TestAWalletSigns(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.Initiators[0].signer(t), "")
	made := a.createWallet(fresh("<wallet>&\u2028"))
	digest := sha256.Sum256([]byte("hello"))
	a.sign(made, request(made, types.KeyTypeSecp256k1, string(digest[:])))
	a.sign(made, request(made, types.KeyTypeSecp256k1, "Hello, MPC World!"))
	a.sign(made, request(made, types.KeyTypeSecp256k1, string(digest[:]), 44, 60, 0, 0, 0))
	a.sign(made, request(made, types.KeyTypeEd25519, "\x00\x00 leading zero bytes count"))
	a.sign(made, request(made, types.KeyTypeEd25519, "child", 44, 501, 7, 0))
}

// Refusals come with the codes that users of this package look at, and the same request is answered again.
func TestRefusalsAndRepetitions(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.Initiators[0].signer(t), "")
	made := a.createWallet(fresh("wallet"))
	if err := a.CreateWallet(made.id); err != nil {
		t.Fatal(err)
	}
	if again := a.awaitWallet(made.id, 1); string(again.eddsaKey) != string(made.eddsaKey) {
		t.Error("the wallet that exists was answered with another key")
	}
	message := request(made, types.KeyTypeEd25519, "once")
	signed := a.sign(made, message)
	if err := a.SignTransaction(message); err != nil {
		t.Fatal(err)
	}
	if again := await(a, a.signing, message.TxID, 1); string(again.Signature) != string(signed.Signature) {
		t.Errorf("the same request was answered in two ways: %+v", again)
	}
	for _, refused := range []struct {
		change       func(*types.SignTxMessage)
		code, reason string
	}{
		{func(m *types.SignTxMessage) { m.WalletID = fresh("nobody's") }, "ERROR_KEY_NOT_FOUND", ""},
		{func(m *types.SignTxMessage) { m.DerivationPath = []uint32{44 | 1<<31} }, "", "hardened"},
		{func(m *types.SignTxMessage) { m.KeyType = "bls12-381" }, "", "bls12-381"},
	} {
		message := request(made, types.KeyTypeEd25519, "refused")
		refused.change(message)
		if err := a.SignTransaction(message); err != nil {
			t.Fatal(err)
		}
		e := await(a, a.signing, message.TxID, 0)
		if e.ResultType != "error" || !strings.Contains(string(e.ErrorCode), refused.code) || !strings.Contains(e.ErrorReason, refused.reason) {
			t.Errorf("expected %q and %q, got %+v", refused.code, refused.reason, e)
		}
	}
}

// Two clients with ids of their own, at the same time: each gets all of its answers and none of the other's.
func TestTwoClientsAtOnceGetTheirOwnAnswers(t *testing.T) {
	w := theWorld(t)
	askers := []*asker{w.ask(t, w.Initiators[0].signer(t), "svc-a"), w.ask(t, w.Initiators[0].signer(t), "svc-b")}
	const each = 3
	var group sync.WaitGroup
	for i, a := range askers {
		group.Go(func() {
			made := a.createWallet(fresh(fmt.Sprintf("route-%d", i)))
			for j := range each {
				a.sign(made, request(made, types.KeyTypeEd25519, fmt.Sprintf("message %d of %d", j, i)))
			}
		})
	}
	group.Wait()
	for i, a := range askers {
		a.mutex.Lock()
		if len(a.keygen) != 1 || len(a.signing) != each {
			t.Errorf("client %d heard of %d wallets and %d signatures", i, len(a.keygen), len(a.signing))
		}
		a.mutex.Unlock()
	}
}

// A client signs on while clients of other releases start and set the streams again.
func TestSignsBesideOtherReleases(t *testing.T) {
	beside(t, "")
}

// As TestSignsBesideOtherReleases, for a client with an id, whose answers older clients leave no room for.
func TestSignsWithAnIdBesideOtherReleases(t *testing.T) {
	beside(t, "newer")
}

func beside(t *testing.T, clientID string) {
	t.Helper()
	w := theWorld(t)
	a := w.ask(t, w.Initiators[0].signer(t), clientID)
	made := a.createWallet(fresh("beside"))
	for i := range 4 {
		// Each start of a client sets the streams again. This one listens to nothing: it would share the answers.
		w.start(t, w.Initiators[0].signer(t), clientID)
		a.sign(made, request(made, types.KeyTypeEd25519, fmt.Sprintf("beside %d", i)))
	}
}

// Every form of the initiator's key file serves.
func TestEveryFormOfTheInitiatorsKeySigns(t *testing.T) {
	w := theWorld(t)
	for _, key := range w.Initiators {
		a := w.ask(t, key.signer(t), "")
		made := a.createWallet(fresh("wallet"))
		a.sign(made, request(made, types.KeyTypeEd25519, key.Path))
	}
}

// The initiator's key stays in the key service; it is named by its id, its ARN and its alias.
func TestAKeyServiceSigns(t *testing.T) {
	w := theWorld(t)
	if len(w.KMS.Keys) == 0 {
		t.Fatal("no keys were given")
	}
	for _, key := range w.KMS.Keys {
		signer, err := client.NewKMSSigner(types.EventInitiatorKeyTypeP256, client.KMSSignerOptions{
			Region: w.KMS.Region, KeyID: key, EndpointURL: w.KMS.Endpoint, AccessKeyID: "test", SecretAccessKey: "test",
		})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		a := w.ask(t, signer, "")
		made := a.createWallet(fresh("wallet"))
		a.sign(made, request(made, types.KeyTypeEd25519, key))
	}
}

// Requests need the approvals of the required authorizers.
func TestAuthorizersApprove(t *testing.T) {
	w := theWorld(t)
	initiator := w.Initiators[0].signer(t)
	a := w.ask(t, initiator, "")
	// The package signs a request once more when it sends it; with Ed25519 that is the same signature.
	approve := func(message types.InitiatorMessage, set func(signature []byte)) []types.AuthorizerSignature {
		raw, err := message.Raw()
		if err != nil {
			t.Fatal(err)
		}
		signature, err := initiator.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		set(signature)
		approved, err := types.ComposeAuthorizerRaw(message)
		if err != nil {
			t.Fatal(err)
		}
		var approvals []types.AuthorizerSignature
		for _, name := range []string{"alice", "Bob"} {
			approval, err := w.Authorizers[name].signer(t).Sign(approved)
			if err != nil {
				t.Fatal(err)
			}
			approvals = append(approvals, types.AuthorizerSignature{AuthorizerID: name, Signature: approval})
		}
		return approvals
	}
	keygen := &types.GenerateKeyMessage{WalletID: fresh("approved")}
	approvals := approve(keygen, func(signature []byte) { keygen.Signature = signature })
	if err := a.CreateWalletWithAuthorizers(keygen.WalletID, approvals); err != nil {
		t.Fatal(err)
	}
	made := a.awaitWallet(keygen.WalletID, 0)
	message := request(made, types.KeyTypeEd25519, "approved")
	message.AuthorizerSignatures = approve(message, func(signature []byte) { message.Signature = signature })
	a.sign(made, message)

	missing := request(made, types.KeyTypeEd25519, "refused")
	missing.AuthorizerSignatures = approve(missing, func(signature []byte) { missing.Signature = signature })[:1]
	if err := a.SignTransaction(missing); err != nil {
		t.Fatal(err)
	}
	if e := await(a, a.signing, missing.TxID, 0); e.ErrorCode != "ERROR_MISSING_AUTHORIZER_SIGNATURE" || !strings.Contains(e.ErrorReason, "Bob") {
		t.Errorf("without an approval: %+v", e)
	}
}

// A request for resharing arrives, although it is sent over core NATS, and is answered.
func TestReshareRequestsAreAnswered(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.Initiators[0].signer(t), "")
	made := a.createWallet(fresh("wallet"))
	if err := a.Resharing(&types.ResharingMessage{
		SessionID: fresh("session"), NodeIDs: w.NodeIDs, NewThreshold: 2, KeyType: types.KeyTypeEd25519, WalletID: made.id,
	}); err != nil {
		t.Fatal(err)
	}
	e := await(a, a.reshare, made.id, 0)
	switch {
	case e.ResultType == "success" && string(e.PubKey) == string(made.eddsaKey):
	case e.ResultType == "error" && strings.HasPrefix(string(e.ErrorCode), "ERROR_") && e.ErrorReason != "":
	default:
		t.Fatalf("neither the same key nor a clear refusal: %+v", e)
	}
	a.sign(made, request(made, types.KeyTypeEd25519, "after the resharing"))
}

// The client makes the streams on an empty server and asks before there is any node.
func TestAClientThatComesBeforeTheNodes(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.Initiators[0].signer(t), "")
	made := a.createWallet(fresh("early"))
	a.sign(made, request(made, types.KeyTypeEd25519, "early"))
}
