/** Asking for a wallet: the query's bytes, and replies that are believed or not. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Attesters, BusError, LocalSigner, MpciumClient, NotAttestedError, RefusedError } from "../src/index.js";
import { encodeQuery, querySignedBytes } from "../src/query.js";
import { attestedParts } from "../src/result.js";
import { INITIATOR, NO_SERVER, Server, keygenSuccess } from "./server.js";

const TAG = Buffer.from("mpcium/1 result\0");
const nodes = [1, 2, 3].map((n) => ({ nodeId: `node-${n}`, signer: LocalSigner.fromSeed(new Uint8Array(32).fill(n)) }));
const attesters = new Attesters(nodes.map(({ nodeId, signer }) => ({ nodeId, key: signer.publicKey })), 2);

async function attestations(document: Uint8Array, by: number[]): Promise<object[]> {
  return await Promise.all(
    nodes.filter((_, i) => by.includes(i + 1)).map(async ({ nodeId, signer }) => ({
      node_id: nodeId,
      signature: Buffer.from(await signer.sign(Buffer.concat([TAG, document]))).toString("base64"),
    })),
  );
}

/** A reply as nodes write it; `mark` is what the keys are made of. */
async function reply(query: { wallet_id: string; request_id: string }, mark: number, by: number[], failure = ""): Promise<object> {
  const { wallet_id, request_id } = query;
  const found = failure === "";
  const keys = keygenSuccess(wallet_id, mark) as { ecdsa_pub_key: string; eddsa_pub_key: string };
  const signedKeys = attestedParts("keygen", Buffer.from(JSON.stringify(keys))).document;
  const document = {
    wallet_id,
    request_id,
    ecdsa_pub_key: found ? keys.ecdsa_pub_key : null,
    eddsa_pub_key: found ? keys.eddsa_pub_key : null,
    threshold: found ? 2 : 0,
    epoch: 0,
    committee: found ? nodes.map((node) => node.nodeId) : [],
    result_type: found ? "success" : "error",
    error_reason: found ? "" : "none",
    error_code: failure,
    wallet_attestations: found ? await attestations(signedKeys, by) : [],
  };
  return { ...document, attestations: await attestations(Buffer.from(JSON.stringify(document)), by.slice(0, 1)) };
}

test("what is signed is the text of the contract", () => {
  const signed = Buffer.from(querySignedBytes({ walletId: "w", requestId: "r", expiresAt: 1_764_000_000_000 })).toString();
  const digest = "c10f5fd2df42ccf60764cc5ed7674b71d4d1c1ca9054d7b2048d822e73866c6a";
  assert.equal(signed, `{"mpcium_wallet_query_v1":"${digest}"}`);
  const other = querySignedBytes({ walletId: "wr", requestId: "", expiresAt: 1_764_000_000_000 });
  assert.notEqual(signed, Buffer.from(other).toString());
  const document = encodeQuery({ walletId: "w", requestId: "r", expiresAt: 7 }, Uint8Array.of(1));
  assert.equal(
    Buffer.from(document).toString(),
    '{"wallet_id":"w","request_id":"r","expires_at":7,"signature":"AQ=="}',
  );
});

describe("on NATS", { skip: NO_SERVER }, () => {
  test("a wallet is told, a refusal is one, and a forged reply is passed over", async (context) => {
    const server = await Server.start();
    context.after(() => server.stop());
    const client = await MpciumClient.connect({ servers: server.url, signer: INITIATOR, attesters });
    await assert.rejects(client.wallet("w", { timeoutMs: 300 }), (e) => e instanceof BusError && e.step === "query");
    const asked: string[] = [];
    const connection = await server.connect();
    connection.subscribe("mpc.wallet_query", {
      callback: (_, message) => {
        const query = JSON.parse(message.string()) as { wallet_id: string; request_id: string };
        asked.push(query.wallet_id);
        void (async () => {
          const forged = query.wallet_id === "never" || (query.wallet_id === "w" && asked.length === 1);
          const failure = query.wallet_id === "nobody" ? "ERROR_KEY_NOT_FOUND" : "";
          message.respond(JSON.stringify(await reply(query, forged ? 9 : 3, forged ? [1] : [1, 3], failure)));
        })();
      },
    });
    await connection.flush();
    const wallet = await client.wallet("w");
    assert.deepEqual([wallet.threshold, wallet.epoch, wallet.committee.length], [2, 0, 3]);
    assert.deepEqual(wallet.eddsaPubKey, new Uint8Array(32).fill(3));
    assert.deepEqual(asked, ["w", "w"]);
    await assert.rejects(client.wallet("nobody"), (e) => e instanceof RefusedError && e.code === "ERROR_KEY_NOT_FOUND");
    await assert.rejects(client.wallet("never", { timeoutMs: 600 }), NotAttestedError);
    await assert.rejects(client.wallet(""), { name: "InvalidRequestError" });
    await client.close();
    await assert.rejects(client.wallet("w"), { name: "ClosedError" });
  });
});
