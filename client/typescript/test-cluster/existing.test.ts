/** What the existing TypeScript client sends is served, where the nodes have made the streams. */

import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { decodeKeygenResult, decodeReshareResult, decodeSigningResult, verifySignature } from "../src/index.js";
import type { WalletKeys } from "../src/index.js";
import { ExistingClient, Heard } from "./existing.js";
import type { ResultDocument } from "./existing.js";
import { PATIENCE_MS, world } from "./world.js";

const { nats, initiatorKey, nodeIds, curves } = world();
const bytes = (result: ResultDocument) => Buffer.from(JSON.stringify(result));

describe("the existing client and a cluster", { timeout: 2 * PATIENCE_MS }, () => {
  let client: ExistingClient;
  const [wallets, signatures, moved] = [new Heard(), new Heard(), new Heard()];
  before(async () => {
    client = await ExistingClient.connect(nats, initiatorKey);
    await client.listen("keygen", wallets.take("wallet_id"));
    await client.listen("sign", signatures.take("tx_id"));
    await client.listen("reshare", moved.take("wallet_id"));
  });
  after(async () => {
    await client.close();
  });

  const created = async (walletId: string): Promise<WalletKeys> => {
    const document = await wallets.of(walletId, PATIENCE_MS);
    assert.deepEqual(Object.keys(document).slice(0, 6), [
      "wallet_id", "ecdsa_pub_key", "eddsa_pub_key", "result_type", "error_reason", "error_code",
    ]);
    assert.deepEqual([document["result_type"], document["error_reason"], document["error_code"]], ["success", "", ""]);
    const result = decodeKeygenResult(bytes(document));
    assert.ok(result.success);
    return result;
  };

  test("wallets with a colon in their id, and without an id of the caller's", async () => {
    await created(await client.createWallet(`${randomUUID()}:1`));
    await created(await client.createWallet());
  });

  test("its keys sign what it sends", async () => {
    const walletId = await client.createWallet(randomUUID());
    const wallet = await created(walletId);
    const digest = createHash("sha256").update("a transaction").digest();
    for (const keyType of curves) {
      const tx = keyType === "ed25519" ? Buffer.from("hello") : digest;
      const txId = await client.sign({ walletId, keyType, networkInternalCode: "solana:devnet", tx: tx.toString("base64") });
      const document = await signatures.of(txId, PATIENCE_MS);
      assert.deepEqual(Object.keys(document).slice(0, 11), [
        "result_type", "error_code", "error_reason", "is_timeout", "network_internal_code", "wallet_id", "tx_id", "r",
        "s", "signature_recovery", "signature",
      ]);
      const result = decodeSigningResult(bytes(document));
      assert.ok(result.success && result.networkInternalCode === "solana:devnet");
      verifySignature(result, { keyType, walletId, txId, tx }, wallet);
    }
  });

  test("a failure is a document that it understands", async () => {
    const asked = { walletId: "nobody's", keyType: "ed25519", networkInternalCode: "", tx: "aGk=" };
    const document = await signatures.of(await client.sign(asked), PATIENCE_MS);
    assert.deepEqual([document["result_type"], document["error_code"]], ["error", "ERROR_KEY_NOT_FOUND"]);
    assert.equal(document["signature"], null);
  });

  test("a resharing that it asks for over core NATS is answered", async () => {
    const walletId = await client.createWallet(randomUUID());
    const wallet = await created(walletId);
    client.reshare({ walletId, nodeIds, newThreshold: 2, keyType: "ed25519" });
    const result = decodeReshareResult(bytes(await moved.of(walletId, PATIENCE_MS)));
    if (result.success) {
      assert.deepEqual(result.pubKey, wallet.eddsaPubKey);
    } else {
      assert.ok(result.code !== undefined && result.reason !== "");
    }
  });
});
