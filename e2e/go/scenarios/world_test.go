// Package scenarios asks a running cluster for wallets and signatures, as programs that use the Go system do.
//
// The end-to-end tests in Rust start the cluster and run these tests by name, with where everything is in the variable
// MPCIUM_E2E. Without it there is no cluster, and they are skipped.
package scenarios

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/nats-io/nats.go"

	"mpcium/e2e/client"
)

// How long an answer may take before a test gives up: longer than the cluster takes to refuse.
const patience = 240 * time.Second

// key is a key file.
type key struct {
	Algorithm, Path, Password string
}

// world says where the cluster is.
type world struct {
	NATS        string         `json:"nats"`
	ChainCode   string         `json:"chain_code"`
	Initiators  []key          `json:"initiators"`
	Authorizers map[string]key `json:"authorizers"`
	NodeIDs     []string       `json:"node_ids"`
	KMS         struct {
		Endpoint string   `json:"endpoint"`
		Region   string   `json:"region"`
		Keys     []string `json:"keys"`
	} `json:"kms"`
}

func theWorld(t *testing.T) *world {
	t.Helper()
	text := os.Getenv("MPCIUM_E2E")
	if text == "" {
		t.Skip("there is no cluster: the end-to-end tests in Rust start one and run this")
	}
	w := new(world)
	if err := json.Unmarshal([]byte(text), w); err != nil {
		t.Fatalf("MPCIUM_E2E: %v", err)
	}
	return w
}

func (w *world) connect(t *testing.T) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(w.NATS)
	if err != nil {
		t.Fatalf("%s: %v", w.NATS, err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func (w *world) initiator(t *testing.T) client.Signer {
	t.Helper()
	return w.Initiators[0].signer(t)
}

func (k key) signer(t *testing.T) client.Signer {
	t.Helper()
	signer, err := client.ReadSigner(k.Algorithm, k.Path, k.Password)
	if err != nil {
		t.Fatalf("%s: %v", k.Path, err)
	}
	return signer
}

// asker is a client whose answers are kept.
type asker struct {
	*client.Client
	*answers
	t *testing.T
}

// answers are what one client has received, or several together.
type answers struct {
	mutex   sync.Mutex
	changed chan struct{}
	keygen  []client.KeygenResult
	signing []client.SigningResult
	reshare []client.ReshareResult
}

// ask makes a client over a connection of its own and listens to all its answers.
func (w *world) ask(t *testing.T, signer client.Signer, clientID string, release client.Release) *asker {
	t.Helper()
	return w.askInto(t, &answers{changed: make(chan struct{})}, signer, clientID, release)
}

func (w *world) askInto(t *testing.T, into *answers, signer client.Signer, clientID string, release client.Release) *asker {
	t.Helper()
	made, err := client.New(client.Options{Conn: w.connect(t), Signer: signer, ClientID: clientID, Release: release})
	if err != nil {
		t.Fatalf("client %q: %v", clientID, err)
	}
	a := &asker{Client: made, answers: into, t: t}
	for _, err := range []error{
		made.OnWalletCreationResult(func(r client.KeygenResult) { a.keep(func() { a.keygen = append(a.keygen, r) }) }),
		made.OnSignResult(func(r client.SigningResult) { a.keep(func() { a.signing = append(a.signing, r) }) }),
		made.OnReshareResult(func(r client.ReshareResult) { a.keep(func() { a.reshare = append(a.reshare, r) }) }),
	} {
		if err != nil {
			t.Fatalf("client %q listens: %v", clientID, err)
		}
	}
	t.Cleanup(made.Stop)
	return a
}

func (a *answers) keep(change func()) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	change()
	close(a.changed)
	a.changed = make(chan struct{})
}

// await waits until find gives something.
func await[T any](a *asker, what string, find func() (T, bool)) T {
	a.t.Helper()
	late := time.After(patience)
	for {
		a.mutex.Lock()
		found, ok := find()
		changed := a.changed
		seen := fmt.Sprintf("%+v %+v %+v", a.keygen, a.signing, a.reshare)
		a.mutex.Unlock()
		if ok {
			return found
		}
		select {
		case <-changed:
		case <-late:
			a.t.Fatalf("no %s within %s; answers so far: %s", what, patience, seen)
		}
	}
}

func last[T any](all []T, is func(T) bool) (T, bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if is(all[i]) {
			return all[i], true
		}
	}
	var none T
	return none, false
}

// wallet is a wallet and its keys.
type wallet struct {
	id                 string
	ecdsaKey, eddsaKey []byte
}

func (a *asker) awaitWallet(id string) client.KeygenResult {
	a.t.Helper()
	return await(a, "wallet "+id, func() (client.KeygenResult, bool) {
		return last(a.keygen, func(r client.KeygenResult) bool { return r.WalletID == id })
	})
}

// createWallet creates a wallet and checks what came.
func (a *asker) createWallet(id string, authorizers ...client.AuthorizerSignature) wallet {
	a.t.Helper()
	if err := a.CreateWallet(id, authorizers...); err != nil {
		a.t.Fatalf("wallet %s: %v", id, err)
	}
	return checkedWallet(a.t, a.awaitWallet(id))
}

func checkedWallet(t *testing.T, r client.KeygenResult) wallet {
	t.Helper()
	if r.ResultType != "success" || r.ErrorCode != "" || r.ErrorReason != "" {
		t.Fatalf("wallet %s: %+v", r.WalletID, r)
	}
	if len(r.ECDSAPubKey) != 64 || len(r.EDDSAPubKey) != 32 {
		t.Fatalf("wallet %s: keys of %d and %d bytes", r.WalletID, len(r.ECDSAPubKey), len(r.EDDSAPubKey))
	}
	return wallet{r.WalletID, r.ECDSAPubKey, r.EDDSAPubKey}
}

func (a *asker) awaitSigned(txID string) client.SigningResult {
	a.t.Helper()
	return await(a, "answer to "+txID, func() (client.SigningResult, bool) {
		return last(a.signing, func(r client.SigningResult) bool { return r.TxID == txID })
	})
}

// sign asks for a signature, waits for it and verifies it under the wallet's key at the request's path.
func (a *asker) sign(w *world, of wallet, message *client.SignMessage) client.SigningResult {
	a.t.Helper()
	if err := a.SignTransaction(message); err != nil {
		a.t.Fatalf("%s: %v", message.TxID, err)
	}
	return verified(a.t, w, of, message, a.awaitSigned(message.TxID))
}

func verified(t *testing.T, w *world, of wallet, m *client.SignMessage, r client.SigningResult) client.SigningResult {
	t.Helper()
	if r.ResultType != "success" || r.ErrorCode != "" || r.ErrorReason != "" || r.IsTimeout {
		t.Fatalf("%s: %+v", m.TxID, r)
	}
	if r.WalletID != of.id || r.NetworkInternalCode != m.NetworkInternalCode {
		t.Fatalf("%s: the answer is for %q on %q", m.TxID, r.WalletID, r.NetworkInternalCode)
	}
	chainCode, err := hex.DecodeString(w.ChainCode)
	if err != nil {
		t.Fatalf("the chain code: %v", err)
	}
	if m.KeyType == "ed25519" {
		child, err := client.DeriveEd25519(of.eddsaKey, chainCode, m.DerivationPath)
		if err != nil {
			t.Fatalf("%s: %v", m.TxID, err)
		}
		if r.R != nil || r.S != nil || r.SignatureRecovery != nil {
			t.Fatalf("%s: an Ed25519 signature with parts of ECDSA: %+v", m.TxID, r)
		}
		if len(r.Signature) != ed25519.SignatureSize || !ed25519.Verify(child, m.Tx, r.Signature) {
			t.Fatalf("%s: the signature does not verify under %x", m.TxID, child)
		}
		return r
	}
	child, err := client.DeriveSecp256k1(of.ecdsaKey, chainCode, m.DerivationPath)
	if err != nil {
		t.Fatalf("%s: %v", m.TxID, err)
	}
	if len(r.R) != 32 || len(r.S) != 32 || len(r.SignatureRecovery) != 1 || r.SignatureRecovery[0] > 1 || r.Signature != nil {
		t.Fatalf("%s: not the parts of an ECDSA signature: %+v", m.TxID, r)
	}
	digest := make([]byte, 32)
	copy(digest[32-len(m.Tx):], m.Tx)
	var s secp256k1.ModNScalar
	if s.SetByteSlice(r.S); s.IsOverHalfOrder() {
		t.Fatalf("%s: the signature has a high s", m.TxID)
	}
	// Recovering from the compact form verifies, and shows that the recovery byte is right.
	compact := append(append([]byte{27 + r.SignatureRecovery[0]}, r.R...), r.S...)
	recovered, _, err := ecdsa.RecoverCompact(compact, digest)
	if err != nil || !recovered.IsEqual(child) {
		t.Fatalf("%s: the signature leads to another key (%v)", m.TxID, err)
	}
	return r
}

var drawn atomic.Int64

// fresh returns an id that nobody has used.
func fresh(prefix string) string {
	return fmt.Sprintf("%s-%d-%d-%d", prefix, time.Now().UnixNano(), os.Getpid(), drawn.Add(1))
}

// ed25519Request asks for a signature on Ed25519.
func ed25519Request(of wallet, message string, path ...uint32) *client.SignMessage {
	return &client.SignMessage{
		KeyType: "ed25519", WalletID: of.id, NetworkInternalCode: "test", TxID: fresh("tx"), Tx: []byte(message), DerivationPath: path,
	}
}

// ecdsaRequest asks for a signature on secp256k1 over bytes that stand for a digest.
func ecdsaRequest(of wallet, digest []byte, path ...uint32) *client.SignMessage {
	request := ed25519Request(of, string(digest), path...)
	request.KeyType = "secp256k1"
	return request
}
