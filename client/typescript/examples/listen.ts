// A service that asks now and hears the results later, also those that came while it was down: with a client id of its
// own it has its own queue of results, which its instances share.
import { LocalSigner, MpciumClient } from "mpcium-client";

const client = await MpciumClient.connect({
  servers: process.env["NATS_URL"] ?? "nats://127.0.0.1:4222",
  signer: await LocalSigner.read("ed25519", process.env["INITIATOR_KEY"] ?? "./event_initiator.key"),
  clientId: "payments",
});

const done = new Promise<void>((resolve) => {
  // A result that this function fails on comes again, three times at most.
  void client.onSignResult(
    (result) => {
      console.log(result.txId, result.success ? "signed" : `${result.codeText}: ${result.reason}`);
      resolve();
    },
    { onError: (error) => console.error("listening:", error) },
  );
});

await client.sign({
  keyType: "ed25519",
  walletId: process.env["WALLET_ID"] ?? "treasury-1",
  txId: process.env["TX_ID"] ?? "payment-4711",
  tx: Buffer.from("hello"),
});
await done;
await client.close();
