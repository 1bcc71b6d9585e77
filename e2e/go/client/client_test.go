package client

import (
	"encoding/base64"
	"encoding/hex"
	"testing"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	bytes, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// The same vectors are tests of the Rust crate: both sides agree on signed bytes and signatures without a network.
func TestSignedBytesAreThoseOfTheContract(t *testing.T) {
	signer, err := newSeedSigner(unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"))
	if err != nil {
		t.Fatal(err)
	}
	tx := unhex(t, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
	for _, vector := range []struct {
		message   interface{ Raw() ([]byte, error) }
		raw       string
		signature string
	}{
		{&KeygenMessage{WalletID: "wallet-1"}, "wallet-1",
			"uTuFKE+YmnIR1tE4m8mqv65NlTuudAGR3zrz71f/BeQyCoIQ4cwSv/npBe+OpFbgSUNnq6iNrIbfKj9MYNWzDw=="},
		{&SignMessage{KeyType: "secp256k1", WalletID: "wallet-1", NetworkInternalCode: "ethereum-mainnet", TxID: "tx-1", Tx: tx},
			`{"key_type":"secp256k1","wallet_id":"wallet-1","network_internal_code":"ethereum-mainnet","tx_id":"tx-1","tx":"LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}`,
			"A41u5TzB+Nowg8ef2NlT5wNF29Q/B7dAapF/YEB7fp5U1j0s/cr2/QCg7bJgHQ5ice+LRLtxgjx0MtAbfPFHCQ=="},
		{&SignMessage{KeyType: "ed25519", WalletID: "a<b>&c\"\\/\u2028\u007f\u0001é", NetworkInternalCode: "solana", TxID: "tx 2"},
			"{\"key_type\":\"ed25519\",\"wallet_id\":\"a\\u003cb\\u003e\\u0026c\\\"\\\\/\\u2028\u007f\\u0001é\",\"network_internal_code\":\"solana\",\"tx_id\":\"tx 2\",\"tx\":null}",
			"4wWgEfG0U2RupGf4Fx39vPdWZOPJS1JgvwFhpdsoi23jSZGjqSoAmQXaSUrpV6/Bfyf111S2qNkl+mvDmBmZCw=="},
		{&SignMessage{KeyType: "ed25519", WalletID: "wallet-1", TxID: "tx-3", Tx: []byte{}},
			`{"key_type":"ed25519","wallet_id":"wallet-1","network_internal_code":"","tx_id":"tx-3","tx":""}`,
			"lYDHuuQqt7QJB0l/YioE7Bj8GUOFR2QbsD72E32pAQfLj4BPglvE5HgvU3tYYi4LSp4nsF/xgPXiyDteMlj6BQ=="},
		{&ReshareMessage{SessionID: "sess-1", NodeIDs: []string{"n-a", "n-b"}, NewThreshold: 1, KeyType: "secp256k1", WalletID: "wallet-1"},
			`{"session_id":"sess-1","node_ids":["n-a","n-b"],"new_threshold":1,"key_type":"secp256k1","wallet_id":"wallet-1"}`,
			"fwJQwSxe66XOsQJ6s2kuSVw2Z0V0iBQTFWCzYyHF1HO1oq/Gla6pSJadLUGlPqgTT01e2lLqm7B6u+c+gYwkBA=="},
		{&ReshareMessage{SessionID: "sess-2", KeyType: "ed25519", WalletID: "wallet-1"},
			`{"session_id":"sess-2","node_ids":null,"new_threshold":0,"key_type":"ed25519","wallet_id":"wallet-1"}`,
			"Y4PNpPTqCGrKwEEjyV0GBqsWaIabatkfAPT3hcPqH0c5URzuMgQzdmoP36YZTILMi9aMymPrx4aFOWvZ26ZVAQ=="},
	} {
		raw, err := vector.message.Raw()
		if err != nil || string(raw) != vector.raw {
			t.Errorf("got %q (%v), expected %q", raw, err, vector.raw)
		}
		signature, err := signer.Sign(raw)
		if got := base64.StdEncoding.EncodeToString(signature); err != nil || got != vector.signature {
			t.Errorf("%s: got the signature %s (%v), expected %s", raw, got, err, vector.signature)
		}
	}
}

func TestChildKeysAreThoseOfTheContract(t *testing.T) {
	code := unhex(t, "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb")
	parent := unhex(t, "54103317f43c66ce1ebec1c671e06de728277e98ce2fad7d9ed08f609fb2fe549ab442ef4d1c8e79431a97e2ff7986a7a701aa3af029630ff039207a0a272295")
	for child, path := range map[string][]uint32{
		"037e12c284100bc6e1775e68235efc75767daeb805b43c439055879ae73e268717": {1, 2, 3},
		"03e4901397de8605d6ba66b67555005aa9eca75d3c8508bc80c0976c3d9842d6d9": {44, 0, 0, 0, 7},
	} {
		key, err := DeriveSecp256k1(parent, code, path)
		if err != nil || hex.EncodeToString(key.SerializeCompressed()) != child {
			t.Errorf("%v: %v, expected %s", path, err, child)
		}
	}
	parent = unhex(t, "4577c0b8e955e03e2ba0075d6e89a7461dd7a9da101347672187efaec2ba5ee8")
	for child, path := range map[string][]uint32{
		"1e3f482f5858eb932f1b088ed1ceef2df39ce7c14c3b3a27533a71a883ee23f8": {1, 2, 3},
		"da1018c3f09b9bae21d4b74fbdbcdc5440829ecadf3320f7aaf3826b7cef20cc": {44, 501, 0, 0},
	} {
		key, err := DeriveEd25519(parent, code, path)
		if err != nil || hex.EncodeToString(key) != child {
			t.Errorf("%v: got %x (%v), expected %s", path, key, err, child)
		}
	}
	if _, err := DeriveEd25519(parent, code, []uint32{1 << 31}); err == nil {
		t.Error("a hardened index was derived")
	}
}
