/** Where the cluster is against which these tests run: the project's end-to-end tests start it and say so. */

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";

import { LocalSigner, MpciumClient } from "../src/index.js";
import type { KeyType, KeygenSuccess, SignRequest } from "../src/index.js";

/** What the end-to-end tests say. */
export interface World {
  /** The address of NATS. */
  nats: string;
  /** The initiator's key file, an Ed25519 seed. */
  initiatorKey: string;
  /** The cluster's chain code, in hexadecimal. */
  chainCode: string;
  /** The nodes' UUIDs. */
  nodeIds: string[];
  /** The curves that are to be tested. */
  curves: KeyType[];
}

/** The cluster's whereabouts, from the variable `MPCIUM_E2E`. */
export function world(): World {
  const text = process.env["MPCIUM_E2E"];
  assert.ok(text, "MPCIUM_E2E is not set: `cargo test -p e2e --test scenarios` runs these tests");
  const said = JSON.parse(text) as Record<string, unknown>;
  return {
    nats: String(said["nats"]),
    initiatorKey: String(said["initiator_key"]),
    chainCode: String(said["chain_code"]),
    nodeIds: said["node_ids"] as string[],
    curves: said["curves"] as KeyType[],
  };
}

/** How long a test waits for a cluster's answer. */
export const PATIENCE_MS = 240_000;

/** Connects a client to the cluster and creates a wallet. */
export async function withWallet(walletId: string): Promise<{ client: MpciumClient; wallet: KeygenSuccess }> {
  const { nats, initiatorKey } = world();
  const signer = await LocalSigner.read("ed25519", initiatorKey);
  const client = await MpciumClient.connect({ servers: nats, signer });
  return { client, wallet: await client.createWalletAndWait(walletId, { timeoutMs: PATIENCE_MS }) };
}

/** Makes requests for a wallet's Ed25519 signature, each with a fresh id and message unless it says otherwise. */
export function asking(walletId: string): (change?: Partial<SignRequest>) => SignRequest {
  return (change = {}) => ({ keyType: "ed25519", walletId, txId: randomUUID(), tx: randomBytes(32), ...change });
}
