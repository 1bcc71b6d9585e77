package scenarios

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mpcium/e2e/client"
)

// One wallet; both curves; texts that are shorter than a digest, as the Go system's own end-to-end tests sign them.
func TestAWalletSignsOnBothCurves(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.initiator(t), "e2e-suite", client.Current)
	made := a.createWallet(fresh("wallet"))
	for _, text := range []string{"Hello, MPC World!", "Test message 2", "\x00\x00 leading zero bytes count"} {
		a.sign(w, made, ed25519Request(made, text))
	}
	digest := sha256.Sum256([]byte("hello"))
	a.sign(w, made, ecdsaRequest(made, digest[:]))
	a.sign(w, made, ecdsaRequest(made, []byte("Hello, MPC World!")))
}

// The client derives child keys by itself, and signatures verify under them.
func TestChildKeysSign(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.initiator(t), "hd", client.Current)
	made := a.createWallet(fresh("wallet"))
	digest := sha256.Sum256([]byte("child"))
	for i := range uint32(3) {
		a.sign(w, made, ed25519Request(made, "child", 44, 501, i, 0))
	}
	a.sign(w, made, ecdsaRequest(made, digest[:], 44, 60, 0, 0, 0))
	hardened := ed25519Request(made, "child", 44|1<<31, 501)
	if err := a.SignTransaction(hardened); err != nil {
		t.Fatal(err)
	}
	if r := a.awaitSigned(hardened.TxID); r.ResultType != "error" || !strings.Contains(r.ErrorReason, "hardened") {
		t.Fatalf("a hardened path: %+v", r)
	}
}

// Two clients with ids of their own, at the same time: each gets all of its answers and none of the other's.
func TestTwoClientsAtOnceGetTheirOwnAnswers(t *testing.T) {
	w := theWorld(t)
	askers := []*asker{w.ask(t, w.initiator(t), "svc-a", client.Current), w.ask(t, w.initiator(t), "svc-b", client.Current)}
	const each = 5
	run(t, 2, func(i int) {
		made := askers[i].createWallet(fresh(fmt.Sprintf("route-%d", i)))
		requests := make([]*client.SignMessage, each)
		for j := range requests {
			requests[j] = ed25519Request(made, fmt.Sprintf("message %d of %d", j, i))
			if err := askers[i].SignTransaction(requests[j]); err != nil {
				t.Error(err)
			}
		}
		for _, request := range requests {
			verified(t, w, made, request, askers[i].awaitSigned(request.TxID))
		}
	})
	for i, a := range askers {
		a.mutex.Lock()
		if len(a.keygen) != 1 || len(a.signing) != each {
			t.Errorf("client %d got %d wallets and %d signatures", i, len(a.keygen), len(a.signing))
		}
		a.mutex.Unlock()
	}
}

// Clients without an id share their answers: each answer goes to one of them.
func TestClientsWithoutAnIdShareAnswers(t *testing.T) {
	w := theWorld(t)
	one := w.ask(t, w.initiator(t), "", client.Current)
	w.askInto(t, one.answers, w.initiator(t), "", client.Current)
	const wanted = 10
	asked := make(map[string]int)
	for range wanted {
		id := fresh("shared")
		asked[id] = 0
		if err := one.CreateWallet(id); err != nil {
			t.Fatal(err)
		}
	}
	// Answers that earlier clients without an id left behind come as well.
	count := await(one, "shared answers", func() (map[string]int, bool) {
		count, different := make(map[string]int), 0
		for _, r := range one.keygen {
			if _, ours := asked[r.WalletID]; ours {
				if count[r.WalletID]++; count[r.WalletID] == 1 {
					different++
				}
			}
		}
		return count, different == wanted
	})
	for id, times := range count {
		if times != 1 {
			t.Errorf("%d answers to the request for %s", times, id)
		}
	}
}

// Answers that arrive while a named client is away wait for it.
func TestAnswersWaitForANamedClient(t *testing.T) {
	w := theWorld(t)
	away, err := client.New(client.Options{Conn: w.connect(t), Signer: w.initiator(t), ClientID: "comes-back"})
	if err != nil {
		t.Fatal(err)
	}
	id := fresh("later")
	if err := away.CreateWallet(id); err != nil {
		t.Fatal(err)
	}
	back := w.ask(t, w.initiator(t), "comes-back", client.Current)
	checkedWallet(t, back.awaitWallet(id))
}

// What an existing client does when a wallet exists or does not, when ids hold what JSON escapes, when it asks again.
func TestRefusalsAndRepetitions(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.initiator(t), "refused", client.Current)
	made := a.createWallet(fresh("<a&b>\u2028"))
	request := ed25519Request(made, "escaped")
	request.TxID, request.NetworkInternalCode = fresh("<tx>&\"\\"), "<net>"
	signed := a.sign(w, made, request)

	// The same request again is answered again, with the same signature.
	a.keep(func() { a.signing = nil })
	if again := a.sign(w, made, request); string(again.Signature) != string(signed.Signature) {
		t.Error("the same request was signed in two ways")
	}
	other := *request
	other.Tx = []byte("other")
	a.keep(func() { a.signing = nil })
	if err := a.SignTransaction(&other); err != nil {
		t.Fatal(err)
	}
	if r := a.awaitSigned(other.TxID); r.ErrorCode != "ERROR_SESSION_DUPLICATE" {
		t.Errorf("another payload under one id: %+v", r)
	}

	// So is a wallet that exists.
	a.keep(func() { a.keygen = nil })
	if again := a.createWallet(made.id); string(again.eddsaKey) != string(made.eddsaKey) {
		t.Error("the wallet that exists was answered with another key")
	}

	unknown := ed25519Request(wallet{id: fresh("nobody's")}, "unknown")
	if err := a.SignTransaction(unknown); err != nil {
		t.Fatal(err)
	}
	if r := a.awaitSigned(unknown.TxID); r.ErrorCode != "ERROR_KEY_NOT_FOUND" || r.ResultType != "error" {
		t.Errorf("an unknown wallet: %+v", r)
	}

	curve := ed25519Request(made, "curve")
	curve.KeyType = "bls12-381"
	if err := a.SignTransaction(curve); err != nil {
		t.Fatal(err)
	}
	if r := a.awaitSigned(curve.TxID); r.ResultType != "error" || !strings.Contains(r.ErrorReason, "bls12-381") {
		t.Errorf("an unknown curve: %+v", r)
	}

	forged := ed25519Request(made, "forged")
	forged.Signature = make([]byte, 64)
	body, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SendRaw("mpc.signing_request."+forged.TxID, body); err != nil {
		t.Fatal(err)
	}
	if r := a.awaitSigned(forged.TxID); r.ErrorCode != "ERROR_INVALID_INITIATOR_SIGNATURE" {
		t.Errorf("a forged signature: %+v", r)
	}
}

// A request for resharing arrives, although it is sent over core NATS, and is answered.
func TestReshareRequestsAreAnswered(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.initiator(t), "reshare", client.Current)
	made := a.createWallet(fresh("wallet"))
	message := &client.ReshareMessage{
		SessionID: fresh("session"), NodeIDs: w.NodeIDs, NewThreshold: 2, KeyType: "ed25519", WalletID: made.id,
	}
	if err := a.Reshare(message); err != nil {
		t.Fatal(err)
	}
	r := await(a, "answer to the resharing", func() (client.ReshareResult, bool) {
		return last(a.reshare, func(r client.ReshareResult) bool { return r.WalletID == made.id })
	})
	switch r.ResultType {
	case "success":
		if string(r.PubKey) != string(made.eddsaKey) || r.NewThreshold != 2 {
			t.Fatalf("the key has changed: %+v", r)
		}
	case "error":
		if !strings.HasPrefix(r.ErrorCode, "ERROR_") || r.ErrorReason == "" || r.PubKey != nil {
			t.Fatalf("no clear refusal: %+v", r)
		}
	default:
		t.Fatalf("neither success nor error: %+v", r)
	}
	a.sign(w, made, ed25519Request(made, "after the resharing"))
}

// An older client resets the stream of results to what it knows, in which a scoped answer has no place. The nodes put
// it right, and both clients get all their answers.
func TestAnOlderClientBesideANewerOne(t *testing.T) {
	w := theWorld(t)
	newer := w.ask(t, w.initiator(t), "newer", client.Current)
	made := newer.createWallet(fresh("new"))
	older := w.ask(t, w.initiator(t), "", client.Older)
	others := older.createWallet(fresh("old"))
	for i := range 3 {
		// Each start of a client sets the streams again. This one listens to nothing: it would share the answers.
		if _, err := client.New(client.Options{Conn: w.connect(t), Signer: w.initiator(t), Release: client.Older}); err != nil {
			t.Fatal(err)
		}
		newer.sign(w, made, ed25519Request(made, fmt.Sprintf("newer %d", i)))
		older.sign(w, others, ed25519Request(others, fmt.Sprintf("older %d", i)))
	}
	w.ask(t, w.initiator(t), "newest", client.Current)
	older.createWallet(fresh("old"))
}

// The client makes the streams on an empty server and asks before there is any node.
func TestAClientThatComesBeforeTheNodes(t *testing.T) {
	w := theWorld(t)
	a := w.ask(t, w.initiator(t), "early", client.Current)
	id := fresh("early")
	if err := a.CreateWallet(id); err != nil {
		t.Fatal(err)
	}
	made := checkedWallet(t, a.awaitWallet(id))
	a.sign(w, made, ed25519Request(made, "early"))
}

// run calls work for each of n at once and waits for all.
func run(t *testing.T, n int, work func(i int)) {
	t.Helper()
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { work(i) })
	}
	group.Wait()
}
