// Creates a wallet and signs with both of its keys. Run it in the folder of the development cluster (`dev`).
import { randomUUID } from "node:crypto";

import { LocalSigner, MpciumClient, ethereumAddress, ethereumSignature, solanaAddress, solanaSignature } from "mpcium-client";

const client = await MpciumClient.connect({
  servers: process.env["NATS_URL"] ?? "nats://127.0.0.1:4222",
  signer: await LocalSigner.read("ed25519", process.env["INITIATOR_KEY"] ?? "./event_initiator.key"),
});
try {
  const wallet = await client.createWalletAndWait("treasury-1");
  console.log("Solana address:  ", solanaAddress(wallet.eddsaPubKey));
  console.log("Ethereum address:", ethereumAddress(wallet.ecdsaPubKey));

  // At once: Ed25519 signs the message itself.
  const message = await client.signAndWait(
    { keyType: "ed25519", walletId: "treasury-1", txId: randomUUID(), tx: Buffer.from("hello") },
    { wallet }, // the signature is verified before the call resolves
  );
  if (message.keyType === "ed25519") {
    console.log("Solana signature:", solanaSignature(message));
  }

  // secp256k1 signs a digest of 32 bytes. A new cluster makes its auxiliary data first, which takes a minute or two.
  const digest = Buffer.alloc(32, 7);
  const transaction = await client.signAndWait(
    { keyType: "secp256k1", walletId: "treasury-1", txId: randomUUID(), tx: digest },
    { wallet, timeoutMs: 180_000 },
  );
  if (transaction.keyType === "secp256k1") {
    console.log("Ethereum signature:", ethereumSignature(transaction).serialized);
  }
} finally {
  await client.close();
}
