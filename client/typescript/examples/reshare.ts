// Moves a wallet's Ed25519 key to other nodes; its public key stays the same. Arguments: the new members' UUIDs.
import { randomUUID } from "node:crypto";

import { LocalSigner, MpciumClient, RefusedError, solanaAddress } from "mpcium-client";

const client = await MpciumClient.connect({
  servers: process.env["NATS_URL"] ?? "nats://127.0.0.1:4222",
  signer: await LocalSigner.read("ed25519", process.env["INITIATOR_KEY"] ?? "./event_initiator.key"),
});
try {
  const moved = await client.reshareAndWait({
    sessionId: randomUUID(),
    walletId: process.env["WALLET_ID"] ?? "treasury-1",
    keyType: "ed25519",
    nodeIds: process.argv.slice(2),
    newThreshold: 2,
  });
  console.log("moved:", solanaAddress(moved.pubKey));
} catch (error) {
  if (error instanceof RefusedError) {
    console.error(`refused (${error.codeText}): ${error.reason}`);
    process.exitCode = 1;
  } else {
    throw error;
  }
} finally {
  await client.close();
}
