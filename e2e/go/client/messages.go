// Package client speaks to an mpcium cluster exactly as the clients of the Go system do: the same documents, signed
// bytes, subjects, streams and consumers, made by the same libraries (encoding/json, nats.go of the same release).
//
// It was written from the description of that contract and shares no line with the Go system or with the Rust crates of
// this repository, so that a misunderstanding on either side shows as a failing scenario. It is for tests.
package client

import "encoding/json"

// AuthorizerSignature is the approval of somebody besides the initiator.
type AuthorizerSignature struct {
	AuthorizerID string `json:"authorizer_id"`
	Signature    []byte `json:"signature"`
}

// KeygenMessage asks for a wallet.
type KeygenMessage struct {
	WalletID             string                `json:"wallet_id"`
	Signature            []byte                `json:"signature"`
	AuthorizerSignatures []AuthorizerSignature `json:"authorizer_signatures,omitempty"`
}

// SignMessage asks for a signature.
type SignMessage struct {
	KeyType              string                `json:"key_type"`
	WalletID             string                `json:"wallet_id"`
	NetworkInternalCode  string                `json:"network_internal_code"`
	TxID                 string                `json:"tx_id"`
	Tx                   []byte                `json:"tx"`
	Signature            []byte                `json:"signature"`
	DerivationPath       []uint32              `json:"derivation_path"`
	AuthorizerSignatures []AuthorizerSignature `json:"authorizer_signatures,omitempty"`
}

// ReshareMessage asks for another committee.
type ReshareMessage struct {
	SessionID            string                `json:"session_id"`
	NodeIDs              []string              `json:"node_ids"`
	NewThreshold         int                   `json:"new_threshold"`
	KeyType              string                `json:"key_type"`
	WalletID             string                `json:"wallet_id"`
	Signature            []byte                `json:"signature,omitempty"`
	AuthorizerSignatures []AuthorizerSignature `json:"authorizer_signatures,omitempty"`
}

// Raw returns the bytes that the initiator signs.
func (m *KeygenMessage) Raw() ([]byte, error) { return []byte(m.WalletID), nil }

// Raw returns the bytes that the initiator signs.
func (m *SignMessage) Raw() ([]byte, error) {
	return json.Marshal(struct {
		KeyType             string `json:"key_type"`
		WalletID            string `json:"wallet_id"`
		NetworkInternalCode string `json:"network_internal_code"`
		TxID                string `json:"tx_id"`
		Tx                  []byte `json:"tx"`
	}{m.KeyType, m.WalletID, m.NetworkInternalCode, m.TxID, m.Tx})
}

// Raw returns the bytes that the initiator signs.
func (m *ReshareMessage) Raw() ([]byte, error) {
	unsigned := *m
	unsigned.Signature, unsigned.AuthorizerSignatures = nil, nil
	return json.Marshal(&unsigned)
}

// AuthorizerRaw returns the bytes that an authorizer signs, for a request whose initiator signed `raw`.
func AuthorizerRaw(initiatorID string, raw, signature []byte) ([]byte, error) {
	return json.Marshal(struct {
		InitiatorID  string `json:"initiator_id"`
		InitiatorRaw []byte `json:"initiator_raw"`
		InitiatorSig []byte `json:"initiator_sig"`
	}{initiatorID, raw, signature})
}

// KeygenResult answers a KeygenMessage.
type KeygenResult struct {
	WalletID    string `json:"wallet_id"`
	ECDSAPubKey []byte `json:"ecdsa_pub_key"`
	EDDSAPubKey []byte `json:"eddsa_pub_key"`
	ResultType  string `json:"result_type"`
	ErrorReason string `json:"error_reason"`
	ErrorCode   string `json:"error_code"`
}

// SigningResult answers a SignMessage.
type SigningResult struct {
	ResultType          string `json:"result_type"`
	ErrorCode           string `json:"error_code"`
	ErrorReason         string `json:"error_reason"`
	IsTimeout           bool   `json:"is_timeout"`
	NetworkInternalCode string `json:"network_internal_code"`
	WalletID            string `json:"wallet_id"`
	TxID                string `json:"tx_id"`
	R                   []byte `json:"r"`
	S                   []byte `json:"s"`
	SignatureRecovery   []byte `json:"signature_recovery"`
	Signature           []byte `json:"signature"`
}

// ReshareResult answers a ReshareMessage. It does not say for which session.
type ReshareResult struct {
	WalletID     string `json:"wallet_id"`
	NewThreshold int    `json:"new_threshold"`
	KeyType      string `json:"key_type"`
	PubKey       []byte `json:"pub_key"`
	ResultType   string `json:"result_type"`
	ErrorReason  string `json:"error_reason"`
	ErrorCode    string `json:"error_code"`
}
