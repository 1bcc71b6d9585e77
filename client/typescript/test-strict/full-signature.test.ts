/** The client against a cluster with `require_full_signature: true`. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { LocalSigner, MpciumClient, RefusedError } from "../src/index.js";
import type { KeygenSuccess } from "../src/index.js";
import { PATIENCE_MS, asking, withWallet, world } from "../test-cluster/world.js";

const { nats, initiatorKey, chainCode } = world();
const wait = { timeoutMs: PATIENCE_MS };

describe("a cluster that takes only requests with every field signed", { timeout: 2 * PATIENCE_MS }, () => {
  const walletId = `strict-${randomUUID()}`;
  let client: MpciumClient;
  let wallet: KeygenSuccess;
  const ask = asking(walletId);

  before(async () => {
    ({ client, wallet } = await withWallet(walletId));
  });
  after(async () => {
    await client.close();
  });

  test("signs with the wallet and with its child keys, and answers queries", async () => {
    await client.signAndWait(ask(), { ...wait, wallet });
    const child = ask({ derivationPath: [44, 501, 0] });
    await client.signAndWait(child, { ...wait, wallet, chainCode: new Uint8Array(Buffer.from(chainCode, "hex")) });
    assert.deepEqual((await client.wallet(walletId)).eddsaPubKey, wallet.eddsaPubKey);
  });

  test("answers a listener with an id", async () => {
    const signer = await LocalSigner.read("ed25519", initiatorKey);
    const named = await MpciumClient.connect({ servers: nats, signer, clientId: `strict-${randomUUID()}` });
    const results = await named.signingResults();
    const request = ask();
    await named.sign(request);
    for await (const received of results) {
      assert.ok(received.result.success && received.result.txId === request.txId);
      await received.ack();
      break;
    }
    await named.close();
  });

  test("refuses the signature that existing clients send", async () => {
    const signer = await LocalSigner.read("ed25519", initiatorKey);
    const plain = await MpciumClient.connect({ servers: nats, signer, fullSignatures: false });
    const refused = (error: unknown) => {
      assert.ok(error instanceof RefusedError, String(error));
      assert.equal(error.code, "ERROR_INVALID_INITIATOR_SIGNATURE");
      assert.match(error.reason, /full_signature/);
      return true;
    };
    await assert.rejects(plain.signAndWait(ask(), wait), refused);
    await assert.rejects(plain.createWalletAndWait(`strict-${randomUUID()}`, wait), refused);
    await plain.close();
  });
});
