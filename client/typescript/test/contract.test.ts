/** The contract with clusters: signed bytes, documents, subjects. The vectors were computed independently. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  DocumentError,
  ERROR_CODES,
  InvalidRequestError,
  LocalSigner,
  PublicKey,
  approve,
  authorizerBytes,
  canonicalBytes,
  decodeKeygenResult,
  decodeRequest,
  decodeReshareResult,
  decodeSigningResult,
  digestOf,
  encodeRequest,
  fullBytes,
  validateRequest,
  verifyInitiator,
} from "../src/index.js";
import type { MessageHash, MpciumRequest } from "../src/index.js";
import {
  CLIENT_ID_BYTES_MAX,
  answeredSequence,
  checkClientId,
  escapeToken,
  resultDurable,
  resultFilter,
  sanitizeConsumer,
  unescapeToken,
} from "../src/subjects.js";

const seed = (first: number) => Uint8Array.from({ length: 32 }, (_, at) => first + at);
const initiator = LocalSigner.fromSeed(seed(0));
const authorizer = LocalSigner.fromSeed(seed(0x40));
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8");
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));

const KEYGEN: MpciumRequest = { kind: "keygen", walletId: "wallet-1" };
const SIGN: MpciumRequest & { kind: "sign" } = {
  kind: "sign",
  keyType: "secp256k1",
  walletId: "wallet-1",
  networkInternalCode: "ethereum-mainnet",
  txId: "tx-1",
  tx: unhex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
};
const RESHARE: MpciumRequest & { kind: "reshare" } = {
  kind: "reshare",
  sessionId: "sess-1",
  nodeIds: ["n-a", "n-b"],
  newThreshold: 1,
  keyType: "secp256k1",
  walletId: "wallet-1",
};

const SIGNED: [string, MpciumRequest, string, string][] = [
  [
    "keygen",
    KEYGEN,
    "wallet-1",
    "uTuFKE+YmnIR1tE4m8mqv65NlTuudAGR3zrz71f/BeQyCoIQ4cwSv/npBe+OpFbgSUNnq6iNrIbfKj9MYNWzDw==",
  ],
  [
    "sign",
    SIGN,
    '{"key_type":"secp256k1","wallet_id":"wallet-1","network_internal_code":"ethereum-mainnet",' +
      '"tx_id":"tx-1","tx":"LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}',
    "A41u5TzB+Nowg8ef2NlT5wNF29Q/B7dAapF/YEB7fp5U1j0s/cr2/QCg7bJgHQ5ice+LRLtxgjx0MtAbfPFHCQ==",
  ],
  [
    "sign with what Go escapes, and nothing to sign",
    {
      kind: "sign",
      keyType: "ed25519",
      walletId: 'a<b>&c"\\/\u2028\u007f\u0001é',
      networkInternalCode: "solana",
      txId: "tx 2",
      tx: null,
    },
    String.raw`{"key_type":"ed25519","wallet_id":"a\u003cb\u003e\u0026c\"\\/\u2028` +
      "\u007f" +
      String.raw`\u0001é","network_internal_code":"solana","tx_id":"tx 2","tx":null}`,
    "4wWgEfG0U2RupGf4Fx39vPdWZOPJS1JgvwFhpdsoi23jSZGjqSoAmQXaSUrpV6/Bfyf111S2qNkl+mvDmBmZCw==",
  ],
  [
    "sign with an empty message",
    { kind: "sign", keyType: "ed25519", walletId: "wallet-1", txId: "tx-3", tx: new Uint8Array() },
    '{"key_type":"ed25519","wallet_id":"wallet-1","network_internal_code":"","tx_id":"tx-3","tx":""}',
    "lYDHuuQqt7QJB0l/YioE7Bj8GUOFR2QbsD72E32pAQfLj4BPglvE5HgvU3tYYi4LSp4nsF/xgPXiyDteMlj6BQ==",
  ],
  [
    "reshare",
    RESHARE,
    '{"session_id":"sess-1","node_ids":["n-a","n-b"],"new_threshold":1,"key_type":"secp256k1","wallet_id":"wallet-1"}',
    "fwJQwSxe66XOsQJ6s2kuSVw2Z0V0iBQTFWCzYyHF1HO1oq/Gla6pSJadLUGlPqgTT01e2lLqm7B6u+c+gYwkBA==",
  ],
  [
    "reshare without a list of nodes",
    {
      kind: "reshare",
      sessionId: "sess-2",
      nodeIds: null,
      newThreshold: 0,
      keyType: "ed25519",
      walletId: "wallet-1",
    },
    '{"session_id":"sess-2","node_ids":null,"new_threshold":0,"key_type":"ed25519","wallet_id":"wallet-1"}',
    "Y4PNpPTqCGrKwEEjyV0GBqsWaIabatkfAPT3hcPqH0c5URzuMgQzdmoP36YZTILMi9aMymPrx4aFOWvZ26ZVAQ==",
  ],
];

for (const [name, request, bytes, signature] of SIGNED) {
  test(`signed bytes of ${name}`, async () => {
    assert.equal(text(canonicalBytes(request)), bytes);
    assert.equal(base64(await initiator.sign(canonicalBytes(request))), signature);
    const signed = { ...request, signature: new Uint8Array(Buffer.from(signature, "base64")) };
    assert.ok(verifyInitiator(initiator.publicKey, signed));
    assert.ok(!verifyInitiator(initiator.publicKey, request));
    signed.signature[10] = (signed.signature[10] ?? 0) ^ 1;
    assert.ok(!verifyInitiator(initiator.publicKey, signed));
  });
}

async function signed<R extends MpciumRequest>(request: R): Promise<R> {
  return { ...request, signature: await initiator.sign(canonicalBytes(request)) };
}

test("signed bytes of authorizers", async () => {
  const request = await approve(await signed(SIGN), "a", authorizer);
  assert.equal(
    text(authorizerBytes(request)),
    '{"initiator_id":"tx-1","initiator_raw":"eyJrZXlfdHlwZSI6InNlY3AyNTZrMSIsIndhbGxldF9pZCI6IndhbGxldC0xIiwi' +
      "bmV0d29ya19pbnRlcm5hbF9jb2RlIjoiZXRoZXJldW0tbWFpbm5ldCIsInR4X2lkIjoidHgtMSIsInR4IjoiTFBKTnVsK3dvdzRtNkRzc" +
      'XhibmluaHNXSGx3ZnAwSmVjd1F6WXBPTG1DUT0ifQ==","initiator_sig":' +
      '"A41u5TzB+Nowg8ef2NlT5wNF29Q/B7dAapF/YEB7fp5U1j0s/cr2/QCg7bJgHQ5ice+LRLtxgjx0MtAbfPFHCQ=="}',
  );
  assert.equal(
    base64(request.authorizerSignatures?.[0]?.signature ?? new Uint8Array()),
    "ud+VN4hrl/eVFazZPO2WNqyQuDhpIkCrTHCUAAtClmeuWlVfZKZbhbkwSk9Z1nxvxP3d7CIh4hsz09LQU6LIBA==",
  );
  const keygen = await approve(await signed(KEYGEN), "a", authorizer);
  assert.equal(
    base64(keygen.authorizerSignatures?.[0]?.signature ?? new Uint8Array()),
    "4zBvNq825n4hDiHRj8NriGEh+XLQOGvLFXnF/Q3s/pnkHbn8S1N1nCV+dCGl1pUPhLg8y1Bbw61Uq70wa2SFAg==",
  );
  await assert.rejects(approve(SIGN, "a", authorizer), /initiator has not signed/);
});

const FULL: [MpciumRequest, string, string][] = [
  [
    KEYGEN,
    "fddfb1525dc63f58a6fbf6f6f8b59c8225915a1e631e83923f9d5edcf07bc278",
    "uspv7Xpql4b2VEhl0Eb/wRas1CGT6CWDPur/lCjtP6kX2UzrczyfwzLrZ0g549SqtqSysscO05Jc/o1O6oSGBQ==",
  ],
  [
    { ...SIGN, derivationPath: [44, 60, 0, 0, 1] },
    "5197a41990ac804d79daedc09bf227a56368be72e38ba20675f5717ebe9d7c61",
    "Mit4+1LXvxsbnqSgSBEaOy7ug+KcJiqAzEGcXTPA4iTTwhr9h0Sc0XBibEH1pudShgfu9iKo2tb3VaMPdbxgAg==",
  ],
  [
    { ...SIGN, txId: "tx-4", tx: Buffer.from("hello"), hash: "keccak256" },
    "af6afdbe0c77b7d090a9f4e7c3a354cdb3ba23e3c27efbb11f9f0067d2323047",
    "3wA8bvOdRa6dp8693HJLRFXiTYbFjGqTtkmGW4lH23yM0xfBgvZbzP5hJ6H9FS8SyQxHfJUg05photkd4TK3Aw==",
  ],
  [
    { kind: "sign", keyType: "ed25519", walletId: "wallet-1", txId: "tx-3", tx: null },
    "e4000b3696e3fd0fd285dc51a50ab7539af82adc9c8a49e1defacbcc634dc328",
    "qwm6OptdwP7zHEmH9Es+UZ+DTZDTxsuRgVLtSQ8JQn0iztUp8lo0kPrfmtJP8yN05/oYY3pkgnZbGmUTCA2AAA==",
  ],
  [
    RESHARE,
    "9d9f4305c66b2725772c2be59530e982513cfda1edacec493668bbc286267f5f",
    "+VOjV4uHqwnGyw7bBUXISJFZZcURNEHqcN606nUWGf7PF6yKblkE6eOzxWsRisWYoVKgWwz4DDr11FcwjZL7Dw==",
  ],
  [
    { ...RESHARE, sessionId: "sess-2", nodeIds: null, newThreshold: 0, keyType: "ed25519" },
    "2ed0288cadcb6ad8ee71d0725756f650e42ad9f87be0f77d55d17b9cd1ebb2b9",
    "M7VVTUvW7dyzeNRNC+p91RfA6XSvGff6By0suj3U/9rGVqMd70xfVQFM8oys5IIwURsUQZ3M7IKBu9xO785fCg==",
  ],
];

const MESSAGE: MpciumRequest & { kind: "sign" } = { ...SIGN, txId: "tx-4", tx: Buffer.from("hello"), hash: "keccak256" };

test("a named hash is part of what is signed", async () => {
  assert.equal(
    text(canonicalBytes(MESSAGE)),
    '{"key_type":"secp256k1","wallet_id":"wallet-1","network_internal_code":"ethereum-mainnet",' +
      '"tx_id":"tx-4","tx":"aGVsbG8=","hash":"keccak256"}',
  );
  assert.equal(
    base64(await initiator.sign(canonicalBytes(MESSAGE))),
    "/PPrZOaBPDaR2Zn5dRkp+wMd/YGfRRkQ159IAyBauOdj0d50njM0HJh2f30HwZecQyvoGv0pPdh+CebR7Fd4AA==",
  );
  const complete = await signed(MESSAGE);
  const again = decodeRequest("sign", encodeRequest(complete));
  assert.equal(again.kind === "sign" && again.hash, "keccak256");
  assert.equal(verifyInitiator(initiator.publicKey, complete), false, "the classic signature alone is not enough");
  const fullSignature = { requestId: "request-1", expiresAt: 1764000000000, signature: null };
  const full = await initiator.sign(fullBytes({ ...complete, fullSignature }) ?? new Uint8Array());
  const whole = { ...complete, fullSignature: { ...fullSignature, signature: full } };
  assert.equal(verifyInitiator(initiator.publicKey, whole), true);
  const { hash: _, ...stripped } = whole;
  assert.equal(verifyInitiator(initiator.publicKey, stripped), false);
  const hex = (hash: MessageHash) => Buffer.from(digestOf(MESSAGE.tx, hash)).toString("hex");
  assert.equal(hex("sha256"), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
  assert.equal(hex("sha256d"), "9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50");
  assert.equal(hex("keccak256"), "1c8aff950685c2ed4bc3174f3472287b56d9517b9c948127319a09a7a36deac8");
  const long = { ...MESSAGE, tx: new Uint8Array(256 * 1024) };
  validateRequest(long);
  for (const [field, change] of [
    ["hash", { hash: "SHA256" as MessageHash }],
    ["hash", { hash: "toString" as MessageHash }],
    ["hash", { keyType: "ed25519" }],
    ["tx", { tx: new Uint8Array(256 * 1024 + 1) }],
  ] as const) {
    assert.throws(() => validateRequest({ ...MESSAGE, ...change }), { name: "InvalidRequestError", field });
  }
});

test("full signatures cover every field, an id, an expiry and a client id", async () => {
  for (const [request, digest, signature] of FULL) {
    const clientId = request.kind === "sign" && request.derivationPath ? { clientId: "svc-a" } : {};
    const fullSignature = { requestId: "request-1", expiresAt: 1764000000000, ...clientId, signature: null };
    const bytes = fullBytes({ ...request, fullSignature }) ?? new Uint8Array();
    assert.equal(text(bytes), `{"mpcium_request_v1":"${digest}"}`);
    assert.equal(base64(await initiator.sign(bytes)), signature);
  }
  assert.equal(fullBytes(KEYGEN), undefined);
  const full = { requestId: "r", expiresAt: 5, clientId: "c", signature: Uint8Array.of(1) };
  const document = encodeRequest({ ...KEYGEN, fullSignature: full });
  assert.equal(
    text(document),
    '{"wallet_id":"wallet-1","signature":null,' +
      '"full_signature":{"request_id":"r","expires_at":5,"client_id":"c","signature":"AQ=="}}',
  );
  assert.deepEqual(decodeRequest("keygen", document).fullSignature, full);
  for (const [field, change] of [
    ["request_id", { requestId: "" }],
    ["expires_at", { expiresAt: -1 }],
    ["expires_at", { expiresAt: 2 ** 53 }],
    ["client_id", { clientId: "a.b" }],
    ["signature", { signature: new Uint8Array(129) }],
  ] as const) {
    const fullSignature = { ...full, ...change };
    const refused = { name: "InvalidRequestError", field: `full_signature.${field}` };
    assert.throws(() => validateRequest({ ...KEYGEN, fullSignature }), refused);
  }
});

test("a full signature that is there must be good, and approvals cover it", async () => {
  const request: MpciumRequest = {
    ...SIGN,
    fullSignature: { requestId: "r", expiresAt: 5, signature: null },
  };
  assert.ok(!verifyInitiator(initiator.publicKey, await signed(request)));
  const signature = await initiator.sign(fullBytes(request) ?? new Uint8Array());
  const good = await signed({ ...request, fullSignature: { requestId: "r", expiresAt: 5, signature } });
  assert.ok(verifyInitiator(initiator.publicKey, good));
  assert.ok(!verifyInitiator(initiator.publicKey, { ...good, derivationPath: [1] } as MpciumRequest));
  const approval = (await approve(good, "a", authorizer)).authorizerSignatures?.[0]?.signature;
  assert.deepEqual(approval, await authorizer.sign(fullBytes(good) ?? new Uint8Array()));
});

test("documents have the fields, order and nulls of the contract", async () => {
  assert.equal(text(encodeRequest(KEYGEN)), '{"wallet_id":"wallet-1","signature":null}');
  assert.equal(
    text(encodeRequest({ ...SIGN, tx: null, signature: new Uint8Array(), derivationPath: [44, 0] })),
    '{"key_type":"secp256k1","wallet_id":"wallet-1","network_internal_code":"ethereum-mainnet","tx_id":"tx-1",' +
      '"tx":null,"signature":"","derivation_path":[44,0]}',
  );
  assert.match(text(encodeRequest({ ...SIGN, derivationPath: [] })), /"signature":null,"derivation_path":null\}$/);
  assert.match(text(encodeRequest(RESHARE)), /"wallet_id":"wallet-1"\}$/);
  const approved = { ...RESHARE, signature: Uint8Array.of(1), authorizerSignatures: [{ authorizerId: "<a>", signature: null }] };
  assert.match(
    text(encodeRequest(approved)),
    /"wallet_id":"wallet-1","signature":"AQ==","authorizer_signatures":\[\{"authorizer_id":"\\u003ca\\u003e","signature":null\}\]\}$/,
  );
});

test("documents survive a round trip", async () => {
  const path = { ...SIGN, walletId: "wöllet <1>\u2028😀", derivationPath: [1, 2 ** 31 - 1] };
  for (const request of [KEYGEN, SIGN, path, RESHARE]) {
    const complete = await approve(await signed(request), "Alice", authorizer);
    const again = decodeRequest(request.kind, encodeRequest(complete));
    assert.equal(text(encodeRequest(again)), text(encodeRequest(complete)));
    assert.deepEqual(canonicalBytes(again), canonicalBytes(complete));
    assert.ok(verifyInitiator(initiator.publicKey, again));
  }
});

test("documents are decoded like Go does it", () => {
  const request = decodeRequest(
    "sign",
    Buffer.from(
      ' {"KEY_TYPE":"ed25519","wallet_id":"x","wallet_id":"w\\ud800","tx_id":"t","tx_id":null,"new":[{}],' +
        '"tx":"aG\\nk=","derivation_path":[1,null,2147483647],"\u017fignature":[1,2,255],' +
        '"authorizer_signatures":[null,{"authorizer_id":"a","signature":""}]}\n',
    ),
  );
  assert.ok(request.kind === "sign");
  assert.equal(request.keyType, "ed25519");
  assert.equal(request.walletId, "w\ufffd");
  assert.equal(request.txId, "t");
  assert.deepEqual(request.tx, new Uint8Array(Buffer.from("hi")));
  assert.deepEqual(request.derivationPath, [1, 0, 2147483647]);
  assert.deepEqual(request.signature, Uint8Array.of(1, 2, 255));
  assert.equal(request.authorizerSignatures?.length, 2);
  assert.deepEqual(request.authorizerSignatures?.[1]?.signature, new Uint8Array());
});

test("documents with wrong types are refused by name", () => {
  const bad: [MpciumRequest["kind"], string, string][] = [
    ["keygen", "[]", "expected an object, got array"],
    ["keygen", "", "invalid JSON at byte 0"],
    ["keygen", '{"wallet_id":7}', "wallet_id: expected a string, got number 7"],
    ["keygen", '{"wallet_id":"w"} x', "data after the document"],
    ["sign", '{"tx":"aGk"}', "tx: not standard base64"],
    ["sign", '{"tx":[256]}', "tx: expected an integer that fits, got number 256"],
    ["sign", '{"derivation_path":[-1]}', "derivation_path"],
    ["sign", '{"derivation_path":[4294967296]}', "derivation_path"],
    ["sign", '{"derivation_path":[1.0]}', "derivation_path"],
    ["reshare", '{"new_threshold":1e0}', "new_threshold"],
    ["reshare", '{"new_threshold":"1"}', "new_threshold: expected an integer that fits, got string"],
    ["reshare", '{"new_threshold":9223372036854775808}', "new_threshold"],
    ["reshare", '{"node_ids":"a"}', "node_ids: expected an array, got string"],
    ["reshare", '{"authorizer_signatures":[1]}', "authorizer_signatures: expected an object"],
    ["keygen", `{"wallet_id":"${"w".repeat(600_000)}"}`, "at most 524288 are read"],
  ];
  for (const [kind, document, problem] of bad) {
    assert.throws(
      () => decodeRequest(kind, Buffer.from(document)),
      (error) => error instanceof DocumentError && error.message.includes(problem),
      document.slice(0, 80),
    );
  }
});

test("impossible values are refused by name", () => {
  const fieldOf = (request: MpciumRequest): string | undefined => {
    try {
      validateRequest(request);
      return undefined;
    } catch (error) {
      assert.ok(error instanceof InvalidRequestError);
      return error.field;
    }
  };
  [KEYGEN, SIGN, RESHARE].forEach((request) => assert.equal(fieldOf(request), undefined));
  for (const id of ["", "{", '{"key_type"', "w".repeat(257), "é".repeat(129), "half \ud800 a pair"]) {
    assert.equal(fieldOf({ kind: "keygen", walletId: id }), "wallet_id", id);
  }
  for (const id of ["a b.c", "[", "é", "w".repeat(256), " {", "😀"]) {
    assert.equal(fieldOf({ kind: "keygen", walletId: id }), undefined, id);
  }
  const order = unhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
  const below = Uint8Array.from(order);
  below[31] = 0x40;
  const changed: [string | undefined, Partial<typeof SIGN>][] = [
    ["tx_id", { txId: "" }],
    ["key_type", { keyType: "p256" as never }],
    ["derivation_path", { derivationPath: new Array<number>(256).fill(0) }],
    ["derivation_path", { derivationPath: [2 ** 31] }],
    ["derivation_path", { derivationPath: [0.5] }],
    ["derivation_path", { derivationPath: [-1] }],
    [undefined, { derivationPath: new Array<number>(255).fill(2 ** 31 - 1) }],
    ["network_internal_code", { networkInternalCode: "n".repeat(257) }],
    ["tx", { tx: order }],
    ["tx", { tx: new Uint8Array(33).fill(1) }],
    ["tx", { tx: "aGk=" as never }],
    [undefined, { tx: below }],
    [undefined, { tx: new Uint8Array(40) }],
    [undefined, { tx: Buffer.from("Hello") }],
    [undefined, { keyType: "ed25519", tx: new Uint8Array(256 * 1024) }],
    ["tx", { keyType: "ed25519", tx: new Uint8Array(256 * 1024 + 1) }],
    ["signature", { signature: new Uint8Array(129) }],
    ["authorizer_signatures", { authorizerSignatures: new Array(65).fill({ authorizerId: "", signature: null }) }],
  ];
  for (const [field, change] of changed) {
    assert.equal(fieldOf({ ...SIGN, ...change }), field, JSON.stringify(change).slice(0, 80));
  }
  for (const [field, change] of [
    ["session_id", { sessionId: "" }],
    ["node_ids", { nodeIds: null }],
    ["node_ids", { nodeIds: ["n-a", "n-a"] }],
    ["new_threshold", { newThreshold: -1 }],
    ["new_threshold", { newThreshold: 3 }],
    ["new_threshold", { newThreshold: 1.5 }],
  ] as const) {
    assert.equal(fieldOf({ ...RESHARE, ...change }), field);
  }
});

test("short digests are padded", () => {
  const expected = new Uint8Array(32);
  expected.set(Buffer.from("Hello"), 27);
  assert.deepEqual(digestOf(Buffer.from("Hello")), expected);
  assert.deepEqual(digestOf(Buffer.concat([Buffer.alloc(40), Buffer.from("Hello")])), expected);
  assert.deepEqual(digestOf(null), new Uint8Array(32));
});

test("results are read and checked", () => {
  const b64 = (length: number, fill = 7) => Buffer.alloc(length, fill).toString("base64");
  const keygen = { wallet_id: "w", ecdsa_pub_key: b64(64), eddsa_pub_key: b64(32), result_type: "success" };
  const wallet = decodeKeygenResult(Buffer.from(JSON.stringify({ ...keygen, error_reason: "", error_code: "" })));
  assert.ok(wallet.success && wallet.walletId === "w" && wallet.ecdsaPubKey.length === 64);

  const signing = { result_type: "success", is_timeout: false, network_internal_code: "n", wallet_id: "w", tx_id: "t" };
  const ecdsa = { ...signing, r: b64(32), s: b64(32), signature_recovery: b64(1, 1), signature: null };
  const eddsa = { ...signing, r: null, s: null, signature_recovery: null, signature: b64(64) };
  const of = (document: object) => decodeSigningResult(Buffer.from(JSON.stringify(document)));
  const first = of(ecdsa);
  assert.ok(first.success && first.keyType === "secp256k1" && first.recovery === 1 && first.r.length === 32);
  const second = of(eddsa);
  assert.ok(second.success && second.keyType === "ed25519" && second.txId === "t");

  const failure = of({ ...signing, result_type: "error", error_code: "ERROR_KEY_NOT_FOUND", error_reason: "none" });
  assert.ok(!failure.success && failure.code === "ERROR_KEY_NOT_FOUND" && failure.reason === "none");
  const unknown = of({ ...signing, result_type: "error", error_code: "ERROR_NEW", is_timeout: true });
  assert.ok(!unknown.success && unknown.code === undefined && unknown.codeText === "ERROR_NEW" && unknown.isTimeout);

  const reshare = { wallet_id: "w", new_threshold: 2, key_type: "ed25519", pub_key: b64(32), result_type: "success" };
  const moved = decodeReshareResult(Buffer.from(JSON.stringify(reshare)));
  assert.ok(moved.success && moved.newThreshold === 2 && moved.pubKey.length === 32);

  for (const bad of [
    "", "[]", "{}", "null", '{"result_type":1}', '{"result_type":"success","wallet_id":7}',
    JSON.stringify({ ...keygen, ecdsa_pub_key: null }), JSON.stringify({ ...keygen, eddsa_pub_key: b64(31) }),
    JSON.stringify({ ...keygen, result_type: "maybe" }),
  ]) {
    assert.throws(() => decodeKeygenResult(Buffer.from(bad)), DocumentError, bad);
  }
  for (const bad of [signing, { ...ecdsa, r: b64(31) }, { ...ecdsa, signature_recovery: b64(1, 4) }, { ...eddsa, signature: b64(63) }]) {
    assert.throws(() => of(bad), DocumentError, JSON.stringify(bad));
  }
  assert.equal(Object.keys(ERROR_CODES).length, 57);
});

test("consumers are those of the contract", () => {
  assert.equal(resultDurable("keygen", undefined), "mpc_keygen_result");
  assert.equal(resultDurable("sign", "svc-a"), "mpc_signing_result_svc_a");
  assert.equal(resultFilter("sign", "svc-a"), "mpc.mpc_signing_result.svc-a.complete");
  assert.equal(resultFilter("sign", undefined), "mpc.mpc_signing_result.complete");
  assert.equal(resultFilter("keygen", "svc-a"), "mpc.mpc_keygen_result.svc-a.*");
  assert.equal(resultFilter("reshare", undefined), "mpc.mpc_reshare_result.*");
  assert.equal(sanitizeConsumer("1.a:b c-d>*"), "_1_a_b_c_dallany");
});

test("ids become one token and back", () => {
  const tokens = [["plain-1:2_é", "plain-1:2_é"], ["", "%"], ["%", "%25"], ["a.b c*>\n", "a%2Eb%20c%2A%3E%0A"], ["a\u2028\u3000b\u00a0\u0085", "a%u2028%u3000b%A0%85"], ["%u2028", "%25u2028"]] as const;
  for (const [id, token] of tokens) {
    assert.equal(escapeToken(id), token);
    assert.equal(unescapeToken(token), id);
  }
  for (const forged of ["%2e", "a%41", "%2", "%zz", "a.b", "%%", "%u20", "%u0041", "%u00A0"]) {
    assert.equal(unescapeToken(forged), undefined, forged);
  }
});

test("a result tells which request it answers", () => {
  assert.equal(answeredSequence("keygen", "mpc.mpc_keygen_result.c:w:mpc-keygen-7-9"), 7);
  assert.equal(answeredSequence("sign", "mpc.mpc_keygen_result.c:w:mpc-keygen-7-9"), undefined);
  assert.equal(answeredSequence("sign", "mpc.mpc_signing_result.t:9d5ba96f-24a4-4a4e-b0a6-1b3d6a0c0c11"), undefined);
});

test("client ids are checked like the existing client does it", () => {
  for (const good of ["svc-a", "a:b", "é", "a%b", "c".repeat(CLIENT_ID_BYTES_MAX)]) {
    assert.doesNotThrow(() => checkClientId(good), good);
  }
  for (const bad of ["", " ", "\u2003", "a b", "a\tb", "a\n", "a.b", "*", ">", "a>b", "c".repeat(CLIENT_ID_BYTES_MAX + 1)]) {
    assert.throws(() => checkClientId(bad), { name: "ClientIdError" }, bad);
  }
});

test("public keys of both algorithms are read and written as configurations spell them", () => {
  const info =
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f" +
    "4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354";
  for (const spelled of [info, `0x${info}`, Buffer.from(info, "hex").toString("base64")]) {
    assert.equal(PublicKey.parse("p256", spelled).text(), info);
  }
  const highS =
    "304502207d3f6b742946a0d270375f82691317d28ea7e5bbfed9dbee16b70b5f2b263a08022100838198817edf306e3538d5a7" +
    "7554dd656bd0978f815951888932b5a5787bced0";
  const key = PublicKey.parse("p256", info);
  assert.ok(key.verifies(Buffer.from("wallet-1"), unhex(highS)));
  for (const bad of [highS.slice(0, -2), `${highS}00`, `${highS.slice(0, 4)}01${highS.slice(6)}`]) {
    assert.ok(!key.verifies(Buffer.from("wallet-1"), unhex(bad)), bad);
  }
  const ed25519 = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
  assert.equal(PublicKey.parse("ed25519", ed25519).text(), ed25519);
  assert.equal(initiator.publicKey.text(), ed25519);
  for (const [algorithm, bad] of [
    ["p256", info.slice(52)],
    ["p256", ed25519],
    ["ed25519", info],
    ["ed25519", `0x${ed25519}`],
    ["ed25519", "00".repeat(32)],
  ] as const) {
    assert.throws(() => PublicKey.parse(algorithm, bad), { name: "KeyError" }, `${algorithm} ${bad}`);
  }
});
