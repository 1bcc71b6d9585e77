import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { inspect } from "node:util";

import { Encrypter } from "age-encryption";

import { LocalSigner, SignerError } from "../src/index.js";
import { KmsSigner } from "../src/kms.js";

const SEED = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const PUBLIC = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
const P256_SEC1 =
  "307702010104200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20a00a06082a8648ce3d030107" +
  "a14403420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902" +
  "a221502bef0d57e08c53b2cc0a56f17d9f9354";
const P256_INFO =
  "3059301306072a8648ce3d020106082a8648ce3d03010703420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca" +
  "515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354";
const problem = (expected: SignerError["problem"]) => (error: unknown) =>
  error instanceof SignerError && error.problem === expected;

test("key files of both algorithms are read", async () => {
  assert.equal(LocalSigner.parse("ed25519", ` ${SEED}\n`).publicKey.text(), PUBLIC);
  const pkcs8 = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "der", type: "pkcs8" });
  assert.equal(LocalSigner.parse("p256", pkcs8).algorithm, "p256");
  for (const content of [P256_SEC1, `0x${P256_SEC1}\n`, Buffer.from(P256_SEC1, "hex")]) {
    const signer = LocalSigner.parse("p256", content);
    assert.equal(signer.publicKey.text(), P256_INFO);
    const message = Buffer.from("wallet-1");
    const signature = await signer.sign(message);
    assert.ok(signer.publicKey.verifies(message, signature));
    assert.deepEqual(await signer.sign(message), signature);
  }
  const secp256k1 = generateKeyPairSync("ec", { namedCurve: "secp256k1" }).privateKey;
  for (const bad of ["", "00", SEED.slice(1), secp256k1.export({ format: "der", type: "pkcs8" })]) {
    assert.throws(() => LocalSigner.parse("ed25519", bad), problem("content"));
    assert.throws(() => LocalSigner.parse("p256", bad), problem("content"));
  }
});

test("P-256 signatures are those of RFC 6979, with a high s where it is high", async () => {
  // RFC 6979, A.2.5: the key, and the signature of "sample" with SHA-256.
  const scalar = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
  const der =
    "3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
    "022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
  const signer = LocalSigner.parse("p256", `30310201010420${scalar}a00a06082a8648ce3d030107`);
  assert.equal(Buffer.from(await signer.sign(Buffer.from("sample"))).toString("hex"), der);
});

test("encrypted key files need their passphrase", async () => {
  const encrypter = new Encrypter();
  encrypter.setPassphrase("open");
  encrypter.setScryptWorkFactor(2);
  const path = join(await mkdtemp(join(tmpdir(), "mpcium-client-")), "event_initiator.key.age");
  await writeFile(path, await encrypter.encrypt(Buffer.from(`${SEED}\n`)));
  const signer = await LocalSigner.read("ed25519", path, { passphrase: "open" });
  assert.equal(signer.publicKey.text(), PUBLIC);
  await assert.rejects(LocalSigner.read("ed25519", path), problem("passphrase"));
  await assert.rejects(LocalSigner.read("ed25519", path, { passphrase: "wrong" }), problem("decrypt"));
  await assert.rejects(LocalSigner.read("ed25519", `${path}.none`), problem("file"));
});

test("no secret is shown", () => {
  for (const signer of [LocalSigner.parse("ed25519", SEED), LocalSigner.parse("p256", P256_SEC1)]) {
    const shown = inspect(signer, { depth: 9, showHidden: true }) + JSON.stringify(signer) + String(signer);
    assert.ok(!shown.includes("0102030405"), shown);
    assert.ok(shown.includes(signer.publicKey.text()));
  }
  assert.throws(
    () => LocalSigner.parse("ed25519", `${SEED}00`),
    (error) => !inspect(error).includes("0102030405"),
  );
});

test("a KMS signer sends the digest and returns what KMS signed", async (context) => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const asked: string[] = [];
  // The two operations of KMS's JSON protocol that the signer uses.
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, string>;
      const operation = String(request.headers["x-amz-target"]).replace("TrentService.", "");
      asked.push(`${operation} ${body["KeyId"]}`);
      response.setHeader("content-type", "application/x-amz-json-1.1");
      if (body["KeyId"] === "alias/none") {
        response.statusCode = 400;
        response.end(JSON.stringify({ __type: "NotFoundException", message: "Alias alias/none is not found." }));
        return;
      }
      if (operation === "GetPublicKey") {
        const info = publicKey.export({ format: "der", type: "spki" });
        response.end(JSON.stringify({ KeySpec: "ECC_NIST_P256", PublicKey: info.toString("base64") }));
        return;
      }
      assert.deepEqual([body["MessageType"], body["SigningAlgorithm"]], ["DIGEST", "ECDSA_SHA_256"]);
      assert.equal(body["Message"], createHash("sha256").update("a".repeat(5000)).digest("base64"));
      const signature = sign("sha256", Buffer.from("a".repeat(5000)), privateKey);
      response.end(JSON.stringify({ Signature: signature.toString("base64") }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => server.close());
  const options = {
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    client: { maxAttempts: 1 },
  };
  const signer = new KmsSigner({ ...options, keyId: "alias/initiator" });
  const message = Buffer.from("a".repeat(5000));
  assert.ok((await signer.publicKey()).verifies(message, await signer.sign(message)));
  signer.close();
  assert.deepEqual(asked, ["GetPublicKey alias/initiator", "Sign alias/initiator"]);

  const missing = new KmsSigner({ ...options, keyId: "alias/none" });
  await assert.rejects(missing.sign(message), (error) => problem("service")(error) && /alias\/none is not found/.test(String(error)));
  missing.close();
  assert.throws(() => new KmsSigner({ ...options, keyId: "" }), /keyId is required/);
});
