// Package unmodified asks a running cluster for wallets and signatures with the Go system's own client package, as it is
// published. Nothing of this project is between that package and the cluster.
//
// The end-to-end tests in Rust choose the release, start the cluster and run these tests by name, with where everything
// is in the variable MPCIUM_E2E. Without it there is no cluster, and they are skipped.
package unmodified

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/fystack/mpcium/pkg/ckdutil"
	"github.com/fystack/mpcium/pkg/client"
	"github.com/fystack/mpcium/pkg/event"
	"github.com/fystack/mpcium/pkg/logger"
	"github.com/fystack/mpcium/pkg/types"
	"github.com/nats-io/nats.go"
)

// How long an answer may take before a test gives up: longer than the cluster takes to refuse.
const patience = 240 * time.Second

func TestMain(m *testing.M) {
	// Nothing of the caller's may decide which credentials are used.
	for _, name := range []string{"AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		_ = os.Unsetenv(name)
	}
	// The package logs through a logger that its users have to set up.
	logger.Init("development", false)
	os.Exit(m.Run())
}

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

func (k key) signer(t *testing.T) client.Signer {
	t.Helper()
	signer, err := client.NewLocalSigner(types.EventInitiatorKeyType(k.Algorithm), client.LocalSignerOptions{
		KeyPath: k.Path, Password: k.Password,
	})
	if err != nil {
		t.Fatalf("%s: %v", k.Path, err)
	}
	return signer
}

// asker is a client whose answers are kept.
type asker struct {
	client.MPCClient
	t       *testing.T
	w       *world
	mutex   sync.Mutex
	changed chan struct{}
	keygen  map[string][]event.KeygenResultEvent
	signing map[string][]event.SigningResultEvent
	reshare map[string][]event.ResharingResultEvent
}

// start makes a client over a connection of its own, which sets the streams as its release has them.
func (w *world) start(t *testing.T, signer client.Signer, clientID string) client.MPCClient {
	t.Helper()
	conn, err := nats.Connect(w.NATS)
	if err != nil {
		t.Fatalf("%s: %v", w.NATS, err)
	}
	t.Cleanup(conn.Close)
	options := client.Options{NatsConn: conn, Signer: signer}
	if clientID != "" {
		// Releases before client ids lack the field, and are to compile all the same.
		field := reflect.ValueOf(&options).Elem().FieldByName("ClientID")
		if !field.IsValid() {
			t.Fatal("this release knows no client ids")
		}
		field.SetString(clientID)
	}
	return client.NewMPCClient(options)
}

// ask starts a client and listens to all its answers.
func (w *world) ask(t *testing.T, signer client.Signer, clientID string) *asker {
	t.Helper()
	a := &asker{
		MPCClient: w.start(t, signer, clientID), t: t, w: w, changed: make(chan struct{}),
		keygen:  make(map[string][]event.KeygenResultEvent),
		signing: make(map[string][]event.SigningResultEvent),
		reshare: make(map[string][]event.ResharingResultEvent),
	}
	for _, err := range []error{
		a.OnWalletCreationResult(func(e event.KeygenResultEvent) {
			a.keep(func() { a.keygen[e.WalletID] = append(a.keygen[e.WalletID], e) })
		}),
		a.OnSignResult(func(e event.SigningResultEvent) {
			a.keep(func() { a.signing[e.TxID] = append(a.signing[e.TxID], e) })
		}),
		a.OnResharingResult(func(e event.ResharingResultEvent) {
			a.keep(func() { a.reshare[e.WalletID] = append(a.reshare[e.WalletID], e) })
		}),
	} {
		if err != nil {
			t.Fatalf("client %q listens: %v", clientID, err)
		}
	}
	return a
}

func (a *asker) keep(change func()) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	change()
	close(a.changed)
	a.changed = make(chan struct{})
}

// await waits for the first answer about something that came after skip others.
func await[T any](a *asker, answers map[string][]T, id string, skip int) T {
	a.t.Helper()
	late := time.After(patience)
	for {
		a.mutex.Lock()
		found, changed := answers[id], a.changed
		a.mutex.Unlock()
		if len(found) > skip {
			return found[skip]
		}
		select {
		case <-changed:
		case <-late:
			a.t.Fatalf("no answer about %q within %s", id, patience)
		}
	}
}

// wallet is a wallet and its keys.
type wallet struct {
	id                 string
	ecdsaKey, eddsaKey []byte
}

func (a *asker) awaitWallet(id string, skip int) wallet {
	a.t.Helper()
	e := await(a, a.keygen, id, skip)
	if e.ResultType != event.ResultTypeSuccess || e.ErrorCode != "" || len(e.ECDSAPubKey) != 64 || len(e.EDDSAPubKey) != 32 {
		a.t.Fatalf("wallet %s: %+v", id, e)
	}
	return wallet{id, e.ECDSAPubKey, e.EDDSAPubKey}
}

func (a *asker) createWallet(id string) wallet {
	a.t.Helper()
	if err := a.CreateWallet(id); err != nil {
		a.t.Fatalf("wallet %s: %v", id, err)
	}
	return a.awaitWallet(id, 0)
}

// sign asks for a signature, waits for it and verifies it under the wallet's key at the request's path.
func (a *asker) sign(of wallet, message *types.SignTxMessage) event.SigningResultEvent {
	a.t.Helper()
	if err := a.SignTransaction(message); err != nil {
		a.t.Fatalf("%s: %v", message.TxID, err)
	}
	return a.verified(of, message, await(a, a.signing, message.TxID, 0))
}

func (a *asker) verified(of wallet, m *types.SignTxMessage, e event.SigningResultEvent) event.SigningResultEvent {
	a.t.Helper()
	if e.ResultType != event.ResultTypeSuccess || e.ErrorCode != "" || e.ErrorReason != "" || e.IsTimeout {
		a.t.Fatalf("%s: %+v", m.TxID, e)
	}
	if e.WalletID != of.id || e.NetworkInternalCode != m.NetworkInternalCode {
		a.t.Fatalf("%s: the answer is for %q on %q", m.TxID, e.WalletID, e.NetworkInternalCode)
	}
	if m.KeyType == types.KeyTypeEd25519 {
		child, err := ckdutil.DeriveEd25519ChildCompressed(of.eddsaKey, a.w.ChainCode, m.DerivationPath)
		if err != nil {
			a.t.Fatalf("%s: %v", m.TxID, err)
		}
		if len(e.Signature) != ed25519.SignatureSize || !ed25519.Verify(child, m.Tx, e.Signature) || e.R != nil || e.S != nil {
			a.t.Fatalf("%s: not a signature under %x: %+v", m.TxID, child, e)
		}
		return e
	}
	parent, err := secp256k1.ParsePubKey(append([]byte{4}, of.ecdsaKey...))
	if err != nil {
		a.t.Fatalf("%s: %v", of.id, err)
	}
	child, err := ckdutil.DeriveSecp256k1ChildCompressed(parent.SerializeCompressed(), a.w.ChainCode, m.DerivationPath)
	if err != nil {
		a.t.Fatalf("%s: %v", m.TxID, err)
	}
	if len(e.R) != 32 || len(e.S) != 32 || len(e.SignatureRecovery) != 1 || e.SignatureRecovery[0] > 1 || e.Signature != nil {
		a.t.Fatalf("%s: not the parts of an ECDSA signature: %+v", m.TxID, e)
	}
	digest := make([]byte, 32)
	copy(digest[32-len(m.Tx):], m.Tx)
	// Recovering from the compact form verifies, and shows that the recovery byte is right.
	compact := append(append([]byte{27 + e.SignatureRecovery[0]}, e.R...), e.S...)
	recovered, _, err := ecdsa.RecoverCompact(compact, digest)
	if err != nil || string(recovered.SerializeCompressed()) != string(child) {
		a.t.Fatalf("%s: the signature leads to another key (%v)", m.TxID, err)
	}
	return e
}

var drawn atomic.Int64

// fresh returns an id that nobody has used.
func fresh(prefix string) string {
	return fmt.Sprintf("%s-%d-%d-%d", prefix, time.Now().UnixNano(), os.Getpid(), drawn.Add(1))
}

// request asks for a signature; for secp256k1 the bytes stand for a digest.
func request(of wallet, keyType types.KeyType, tx string, path ...uint32) *types.SignTxMessage {
	return &types.SignTxMessage{
		KeyType: keyType, WalletID: of.id, NetworkInternalCode: "test", TxID: fresh("tx"), Tx: []byte(tx),
		DerivationPath: path,
	}
}
