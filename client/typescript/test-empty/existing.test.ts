/**
 * The existing TypeScript client on a server that has nothing yet: it makes the streams as it knows them, with which no
 * other client and no node can live. It asks for a wallet and goes; what it leaves behind is for the nodes to name.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ExistingClient } from "../test-cluster/existing.js";
import { world } from "../test-cluster/world.js";

test("the existing client comes first", { timeout: 60_000 }, async () => {
  const { nats, initiatorKey } = world();
  const client = await ExistingClient.connect(nats, initiatorKey);
  await client.listen("keygen", () => undefined);
  await client.createWallet("too-early");
  const manager = await client.connection.jetstreamManager();
  for (const [name, retention] of [
    ["mpc-keygen", "workqueue"],
    ["mpc-signing", "workqueue"],
    ["mpc", "interest"],
  ] as const) {
    assert.equal((await manager.streams.info(name)).config.retention, retention);
  }
  assert.equal((await manager.streams.info("mpc-keygen")).state.messages, 1);
  await client.close();
});
