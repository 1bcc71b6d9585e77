// Addresses of child keys, and a signature by one of them. The cluster needs a `chain_code`; whoever knows it derives the
// addresses without asking anybody.
import { randomUUID } from "node:crypto";

import {
  LocalSigner,
  MpciumClient,
  deriveEd25519,
  deriveSecp256k1,
  ethereumAddress,
  solanaAddress,
} from "mpcium-client";

const chainCode = Buffer.from(process.env["CHAIN_CODE"] ?? "", "hex");
const walletId = process.env["WALLET_ID"] ?? "treasury-1";
const client = await MpciumClient.connect({
  servers: process.env["NATS_URL"] ?? "nats://127.0.0.1:4222",
  signer: await LocalSigner.read("ed25519", process.env["INITIATOR_KEY"] ?? "./event_initiator.key"),
});
try {
  const wallet = await client.createWalletAndWait(walletId);
  for (let account = 0; account < 3; account += 1) {
    const ethereum = deriveSecp256k1(wallet.ecdsaPubKey, chainCode, [44, 60, 0, 0, account]);
    const solana = deriveEd25519(wallet.eddsaPubKey, chainCode, [44, 501, account, 0]);
    console.log(account, ethereumAddress(ethereum.publicKey), solanaAddress(solana.publicKey));
  }
  // With wallet and chain code the signature is verified under the child's key.
  await client.signAndWait(
    { keyType: "ed25519", walletId, txId: randomUUID(), tx: Buffer.from("hello"), derivationPath: [44, 501, 2, 0] },
    { wallet, chainCode },
  );
  console.log("the child has signed");
} finally {
  await client.close();
}
