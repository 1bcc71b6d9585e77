/** The client against a real cluster. */

import assert from "node:assert/strict";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";

import {
  Attesters,
  LocalSigner,
  MpciumClient,
  RefusedError,
  UnverifiedResultError,
  deriveEd25519,
  deriveSecp256k1,
  ethereumAddress,
  ethereumSignature,
  verifySignature,
} from "../src/index.js";
import type { KeygenSuccess, SigningResult } from "../src/index.js";
import { PATIENCE_MS, asking, withWallet, world } from "./world.js";

const { nats, initiatorKey, chainCode: chainCodeText, nodeIds } = world();
const chainCode = new Uint8Array(Buffer.from(chainCodeText, "hex"));
const wait = { timeoutMs: PATIENCE_MS };
const refusedWith = (code: string) => (error: unknown) => {
  assert.ok(error instanceof RefusedError, String(error));
  assert.equal(error.code, code);
  assert.notEqual(error.reason, "");
  return true;
};

describe("the client and a cluster", { timeout: 2 * PATIENCE_MS }, () => {
  let client: MpciumClient;
  let wallet: KeygenSuccess;
  const walletId = `ts-${randomUUID()}`;
  const ask = asking(walletId);

  before(async () => {
    ({ client, wallet } = await withWallet(walletId));
  });
  after(async () => {
    await client.close();
  });

  test("a wallet can be asked for", async () => {
    const info = await client.wallet(walletId);
    assert.deepEqual([info.ecdsaPubKey, info.eddsaPubKey], [wallet.ecdsaPubKey, wallet.eddsaPubKey]);
    assert.ok(info.threshold >= 2 && info.committee.length >= info.threshold);
    await assert.rejects(client.wallet(randomUUID()), { code: "ERROR_KEY_NOT_FOUND" });
  });

  test("a wallet that is created again has the same keys", async () => {
    assert.deepEqual(await client.createWalletAndWait({ walletId }, wait), wallet);
  });

  test("both keys sign, and the signatures are verified", async () => {
    const messages = [Buffer.from("hello"), Buffer.from([0, 0, 104, 105]), new Uint8Array(), Buffer.alloc(100_000, 7)];
    for (const tx of messages) {
      const signed = await client.signAndWait(ask({ tx }), { ...wait, wallet });
      assert.equal(signed.keyType, "ed25519");
    }
    const digest = createHash("sha256").update("a transaction").digest();
    const signed = await client.signAndWait(ask({ keyType: "secp256k1", tx: digest }), { ...wait, wallet });
    assert.ok(signed.keyType === "secp256k1");
    assert.match(ethereumSignature(signed).serialized, /^0x[0-9a-f]{128}1[bc]$/);
    assert.match(ethereumAddress(wallet.ecdsaPubKey), /^0x[0-9A-Fa-f]{40}$/);
  });

  test("messages are signed that the nodes hash", async () => {
    for (const hash of ["sha256", "sha256d", "keccak256"] as const) {
      const request = ask({ keyType: "secp256k1", tx: Buffer.from("hello"), hash });
      // The client verifies the signature under a digest of its own making.
      await client.signAndWait(request, { ...wait, wallet });
    }
  });

  test("the same request has one answer, and its id is not for another", async () => {
    const request = ask({ txId: "a.b *>é\u2028<&>" + randomUUID() });
    const [first, second] = await Promise.all([client.signAndWait(request, wait), client.signAndWait(request, wait)]);
    assert.deepEqual(first, second);
    assert.deepEqual(await client.signAndWait(request, { ...wait, wallet }), first);
    const other = client.signAndWait({ ...request, tx: Buffer.from("another") }, wait);
    await assert.rejects(other, refusedWith("ERROR_SESSION_DUPLICATE"));
  });

  test("child keys sign on both curves", async () => {
    for (const [keyType, derivationPath] of [["ed25519", [44, 501, 3, 0]], ["secp256k1", [44, 60, 0, 0, 7]]] as const) {
      const request = ask({ keyType, derivationPath });
      const signed = await client.signAndWait(request, { ...wait, wallet, chainCode });
      const child =
        keyType === "ed25519"
          ? deriveEd25519(wallet.eddsaPubKey, chainCode, derivationPath).publicKey
          : deriveSecp256k1(wallet.ecdsaPubKey, chainCode, derivationPath).publicKey;
      verifySignature(signed, { ...request, derivationPath: [] }, { ecdsaPubKey: child, eddsaPubKey: child });
      const asParent = () => verifySignature(signed, { ...request, derivationPath: [] }, wallet);
      assert.throws(asParent, UnverifiedResultError);
    }
  });

  test("refusals have a code and a reason", async () => {
    await assert.rejects(client.signAndWait(ask({ walletId: "nobody's" }), wait), refusedWith("ERROR_KEY_NOT_FOUND"));
    const stranger = await MpciumClient.connect({ servers: nats, signer: LocalSigner.fromSeed(randomBytes(32)) });
    const refused = refusedWith("ERROR_INVALID_INITIATOR_SIGNATURE");
    await assert.rejects(stranger.signAndWait(ask(), wait), refused);
    await assert.rejects(stranger.createWalletAndWait(`ts-${randomUUID()}`, wait), refused);
    await stranger.close();
  });

  test("requests without a full signature are answered too", async () => {
    const signer = await LocalSigner.read("ed25519", initiatorKey);
    const plain = await MpciumClient.connect({ servers: nats, signer, fullSignatures: false });
    await plain.signAndWait(ask(), { ...wait, wallet });
    await plain.close();
    const short = await MpciumClient.connect({ servers: nats, signer, validForMs: -600_000 });
    await assert.rejects(short.signAndWait(ask(), wait), (error) => error instanceof RefusedError);
    await short.close();
  });

  test("answers that the nodes have signed are believed, and those of strangers are not", async () => {
    const signer = await LocalSigner.read("ed25519", initiatorKey);
    const folder = dirname(initiatorKey);
    const attesters = await Attesters.read(join(folder, "peers.json"), join(folder, "node0", "identity"), 2);
    const careful = await MpciumClient.connect({ servers: nats, signer, attesters });
    assert.deepEqual(await careful.createWalletAndWait(walletId, wait), wallet);
    await careful.signAndWait(ask(), { ...wait, wallet });
    await careful.close();
    const key = LocalSigner.fromSeed(randomBytes(32)).publicKey;
    const others = new Attesters(nodeIds.map((nodeId) => ({ nodeId, key })), 2);
    const misled = await MpciumClient.connect({ servers: nats, signer, attesters: others });
    await assert.rejects(misled.signAndWait(ask(), { timeoutMs: 10_000 }), { name: "NotAttestedError", good: 0 });
    await misled.close();
  });

  test("two clients with ids hear their own results, each once", async () => {
    const signer = await LocalSigner.read("ed25519", initiatorKey);
    const heard = async (clientId: string): Promise<void> => {
      const own = await MpciumClient.connect({ servers: nats, signer, clientId });
      const seen: SigningResult[] = [];
      const requests = [ask({ networkInternalCode: clientId }), ask({ networkInternalCode: clientId })];
      const done = withResolvers();
      const listening = await own.onSignResult((result) => {
        seen.push(result);
        if (seen.length === requests.length) {
          done.resolve();
        }
      });
      await Promise.all(requests.map((request) => own.sign(request)));
      await done.promise;
      await listening.stop();
      assert.deepEqual(seen.map((result) => result.txId).sort(), requests.map((request) => request.txId).sort());
      for (const result of seen) {
        const request = requests.find((one) => one.txId === result.txId);
        assert.ok(result.success && request !== undefined && result.networkInternalCode === clientId);
        verifySignature(result, request, wallet);
      }
      await own.close();
    };
    await Promise.all([heard(`ts-a-${randomUUID()}`), heard(`ts-b-${randomUUID()}`)]);
  });

  test("a reshare request has an answer: the same key, or why not", async () => {
    const request = { sessionId: randomUUID(), walletId, keyType: "ed25519", nodeIds, newThreshold: 2 } as const;
    try {
      const moved = await client.reshareAndWait(request, wait);
      assert.deepEqual(moved.pubKey, wallet.eddsaPubKey);
    } catch (error) {
      assert.ok(error instanceof RefusedError && error.code !== undefined && error.reason !== "", String(error));
    }
    await client.signAndWait(ask(), { ...wait, wallet });
  });
});

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
