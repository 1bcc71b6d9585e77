import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { Attesters, LocalSigner, MpciumClient, NotAttestedError } from "../src/index.js";
import { attestedParts } from "../src/result.js";
import { INITIATOR, NO_SERVER, Server, eddsaSuccess, keygenSuccess, signingError } from "./server.js";

const nodes = [1, 2, 3].map((n) => ({ nodeId: `node-${n}`, signer: LocalSigner.fromSeed(new Uint8Array(32).fill(n)) }));
const cluster = (forSuccess: number, forError?: number) =>
  new Attesters(nodes.map(({ nodeId, signer }) => ({ nodeId, key: signer.publicKey })), forSuccess, forError);

/** The document with the signatures of the nodes with these numbers; others are strangers who use a node's name. */
async function signed(document: object, by: number[], kind: "keygen" | "sign" = "sign"): Promise<object> {
  const { document: bytes } = attestedParts(kind, Buffer.from(JSON.stringify(document)));
  const message = Buffer.concat([Buffer.from("mpcium/1 result\0"), bytes]);
  const attestations = [];
  for (const n of by) {
    const signer = LocalSigner.fromSeed(new Uint8Array(32).fill(n));
    const signature = Buffer.from(await signer.sign(message)).toString("base64");
    attestations.push({ node_id: `NODE-${n > 3 ? 3 : n}`, signature });
  }
  return { ...document, attestations };
}
const bytes = (document: object) => Buffer.from(JSON.stringify(document));

test("what nodes sign is the document without their signatures", async () => {
  const document = eddsaSuccess("w<", "t", 7);
  const parts = attestedParts("sign", bytes(await signed(document, [1, 2])));
  const expected = JSON.stringify(document).replace("<", "\\u003c");
  assert.equal(Buffer.from(parts.document).toString(), expected);
  assert.equal(parts.attestations.length, 2);
});

test("as many different nodes as demanded must have signed", async () => {
  const document = eddsaSuccess("w", "t", 7);
  cluster(2).check("sign", bytes(await signed(document, [1, 3])));
  cluster(2).check("sign", bytes(await signed(document, [1, 2, 3])));
  for (const [by, good] of [[[], 0], [[1], 1], [[1, 1], 1], [[1, 9], 1], [[8, 9], 0]] as [number[], number][]) {
    const answer = bytes(await signed(document, by));
    assert.throws(() => cluster(2).check("sign", answer), { name: "NotAttestedError", good, demanded: 2 });
  }
  const changed = { ...(await signed(document, [1, 2])), wallet_id: "x" };
  assert.throws(() => cluster(2).check("sign", bytes(changed)), { name: "NotAttestedError", good: 0 });
  assert.throws(() => cluster(2).check("sign", bytes(document)), NotAttestedError);
  assert.throws(() => cluster(4), /4 attestations are demanded of 3 nodes/);
  assert.throws(() => cluster(0), { name: "KeyError" });
});

test("an error needs one node, and is no success by that", async () => {
  const error = await signed(signingError("w", "t", "ERROR_KEY_NOT_FOUND", "none"), [2]);
  cluster(2).check("sign", bytes(error));
  assert.throws(() => cluster(2, 2).check("sign", bytes(error)), NotAttestedError);
  assert.throws(() => cluster(2).check("sign", bytes({ ...error, result_type: "success" })), NotAttestedError);
});

test("nodes are read from the operators' files", async () => {
  const folder = await mkdtemp(join(tmpdir(), "mpcium-client-peers-"));
  const peers = join(folder, "peers.json");
  await writeFile(peers, JSON.stringify(Object.fromEntries(nodes.map(({ nodeId }) => [`n${nodeId}`, nodeId]))));
  for (const { nodeId, signer } of nodes) {
    const identity = { node_name: `n${nodeId}`, node_id: nodeId, public_key: signer.publicKey.text() };
    await writeFile(join(folder, `n${nodeId}_identity.json`), JSON.stringify(identity));
  }
  const read = await Attesters.read(peers, folder, 2);
  read.check("keygen", bytes(await signed(keygenSuccess("w", 1), [1, 2], "keygen")));
  await writeFile(join(folder, "nnode-2_identity.json"), '{"node_id":"other"}');
  await assert.rejects(Attesters.read(peers, folder, 2), /node_id is other, expected node-2/);
  await assert.rejects(Attesters.read(`${peers}.none`, folder, 2), { name: "KeyError" });
});

describe("on NATS", { skip: NO_SERVER }, () => {
  test("forged answers are passed over until the nodes' own comes", async (context) => {
    const server = await Server.start();
    context.after(() => server.stop());
    const client = await MpciumClient.connect({ servers: server.url, signer: INITIATOR, attesters: cluster(2) });
    const asker = await server.cluster("sign");
    const request = (txId: string) => ({ keyType: "ed25519", walletId: "w", txId, tx: Buffer.from("m") }) as const;
    const call = client.signAndWait(request("t"));
    const asked = await asker.next();
    await asker.answer(asked, eddsaSuccess("w", "t", 1), "forged");
    await asker.answer(asked, await signed(eddsaSuccess("w", "t", 2), [1, 3]));
    const result = await call;
    assert.ok(result.keyType === "ed25519" && result.signature[0] === 2);
    const misled = assert.rejects(client.signAndWait(request("u"), { timeoutMs: 1000 }), NotAttestedError);
    await asker.answer(await asker.next(), eddsaSuccess("w", "u", 1));
    await misled;
    await client.close();
  });
});
