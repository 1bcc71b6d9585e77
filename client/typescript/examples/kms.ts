// An initiator whose key is in AWS KMS (spec ECC_NIST_P256). Needs `npm install @aws-sdk/client-kms`.
import { MpciumClient } from "mpcium-client";
import { KmsSigner } from "mpcium-client/kms";

const endpoint = process.env["KMS_ENDPOINT"];
const signer = new KmsSigner({
  region: process.env["AWS_REGION"] ?? "us-east-1",
  keyId: process.env["KMS_KEY_ID"] ?? "alias/mpcium-initiator",
  // Without credentials the SDK finds a role, a profile or the environment's. These two are for an emulator.
  ...(endpoint === undefined ? {} : { endpoint, credentials: { accessKeyId: "test", secretAccessKey: "test" } }),
});
console.log("event_initiator_algorithm: p256");
console.log(`event_initiator_pubkey: "${(await signer.publicKey()).text()}"`);

const client = await MpciumClient.connect({ servers: process.env["NATS_URL"] ?? "nats://127.0.0.1:4222", signer });
try {
  const wallet = await client.createWalletAndWait(process.env["WALLET_ID"] ?? "treasury-kms", { timeoutMs: 60_000 });
  console.log("wallet created:", wallet.walletId);
} finally {
  await client.close();
  signer.close();
}
