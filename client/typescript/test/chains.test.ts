import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";

import { secp256k1 } from "@noble/curves/secp256k1.js";

import {
  base58,
  derSignature,
  deriveSecp256k1,
  eip155V,
  ethereumAddress,
  ethereumSignature,
  solanaAddress,
  solanaSignature,
  verifySignature,
} from "../src/index.js";
import type { EcdsaSuccess, EddsaSuccess, SignRequest, WalletKeys } from "../src/index.js";

const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));
const CHAIN_CODE = new Uint8Array(32).fill(9);

/** The well-known key of EIP-155's example. */
const SECRET = new Uint8Array(32).fill(0x46);
const KEY = secp256k1.getPublicKey(SECRET, false).slice(1);

function ecdsa(digest: Uint8Array, secret: Uint8Array, txId = "t"): EcdsaSuccess {
  const recovered = secp256k1.sign(digest, secret, { prehash: false, format: "recovered" });
  const [recovery, r, s] = [recovered[0] ?? 9, recovered.slice(1, 33), recovered.slice(33)];
  return { success: true, keyType: "secp256k1", networkInternalCode: "", walletId: "w", txId, r, s, recovery };
}

test("Ethereum's forms", () => {
  assert.equal(ethereumAddress(KEY), "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
  assert.equal(ethereumAddress(secp256k1.getPublicKey(SECRET)), "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
  // EIP-155's example: the digest of its transaction, and the signature that it names.
  const result = ecdsa(unhex("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53"), SECRET);
  const signature = ethereumSignature(result);
  assert.equal(signature.r, "0x28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276");
  assert.equal(signature.s, "0x67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83");
  assert.deepEqual([signature.yParity, signature.v, eip155V(signature, 1)], [0, 27, 37n]);
  assert.equal(signature.serialized, `${signature.r}${signature.s.slice(2)}1b`);
  assert.throws(() => ethereumSignature({ ...result, recovery: 2 }), { name: "UnverifiedResultError" });
  assert.equal(Buffer.from(derSignature(result)).toString("hex").slice(0, 4), "3044");
});

test("Solana's forms", () => {
  assert.equal(base58(Buffer.from("Hello World!")), "2NEpo7TZRRrLZSi2U");
  assert.equal(base58(unhex("0000287fb4cd")), "11233QC4");
  assert.equal(base58(new Uint8Array()), "");
  assert.equal(base58(new Uint8Array(2)), "11");
  assert.equal(solanaAddress(new Uint8Array(32)), "11111111111111111111111111111111");
  const result = { signature: new Uint8Array(64).fill(255) } as EddsaSuccess;
  assert.equal(solanaSignature(result).length, 88);
});

test("signatures are verified under the wallet's key or the child's, and nothing else passes", () => {
  const pair = generateKeyPairSync("ed25519");
  const eddsaPubKey = new Uint8Array(pair.publicKey.export({ format: "der", type: "spki" }).subarray(-32));
  const wallet: WalletKeys = { ecdsaPubKey: KEY, eddsaPubKey };
  const request: SignRequest = { keyType: "secp256k1", walletId: "w", txId: "t", tx: Buffer.from("short digest") };
  const digest = new Uint8Array(32);
  digest.set(Buffer.from("short digest"), 20);
  const good = ecdsa(digest, SECRET);
  verifySignature(good, request, wallet);

  const refused = (result: EcdsaSuccess | EddsaSuccess, changed: Partial<SignRequest>, why: RegExp) =>
    assert.throws(() => verifySignature(result, { ...request, ...changed }, wallet, CHAIN_CODE), {
      name: "UnverifiedResultError",
      message: why,
    });
  refused(good, { tx: Buffer.from("another digest") }, /does not verify/);
  refused(good, { walletId: "v" }, /of wallet "w"/);
  refused(good, { txId: "u" }, /the answer is to "t"/);
  refused(good, { keyType: "ed25519" }, /asked for a ed25519 signature/);
  refused(good, { derivationPath: [1] }, /does not verify/);
  refused({ ...good, recovery: good.recovery ^ 1 }, {}, /another key/);
  const high = secp256k1.Point.Fn.ORDER - BigInt(`0x${Buffer.from(good.s).toString("hex")}`);
  refused({ ...good, s: unhex(high.toString(16).padStart(64, "0")) }, {}, /does not verify/);

  const child = deriveSecp256k1(KEY, CHAIN_CODE, [44, 60]);
  const shift = BigInt(`0x${Buffer.from(child.shift).toString("hex")}`);
  const secret = (BigInt(`0x${Buffer.from(SECRET).toString("hex")}`) + shift) % secp256k1.Point.Fn.ORDER;
  const byChild = ecdsa(digest, unhex(secret.toString(16).padStart(64, "0")));
  verifySignature(byChild, { ...request, derivationPath: [44, 60] }, wallet, CHAIN_CODE);
  refused(byChild, {}, /does not verify/);
  assert.throws(() => verifySignature(byChild, { ...request, derivationPath: [44, 60] }, wallet), /chain code/);

  const message = Buffer.from([0, 0, 104, 105]);
  const signature = new Uint8Array(sign(null, message, pair.privateKey));
  const eddsa: EddsaSuccess = {
    success: true, keyType: "ed25519", networkInternalCode: "", walletId: "w", txId: "t", signature,
  };
  verifySignature(eddsa, { ...request, keyType: "ed25519", tx: message }, wallet);
  refused(eddsa, { keyType: "ed25519", tx: message.subarray(2) }, /does not verify/);
});
