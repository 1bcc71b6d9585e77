// A request that two people have to approve before the cluster signs: the cluster's configuration names them under
// `authorization`. The initiator and the authorizers need not share a machine: what travels between them is the document.
import { LocalSigner, MpciumClient, approve, decodeRequest, encodeRequest } from "mpcium-client";

const client = await MpciumClient.connect({
  servers: process.env["NATS_URL"] ?? "nats://127.0.0.1:4222",
  signer: await LocalSigner.read("ed25519", process.env["INITIATOR_KEY"] ?? "./event_initiator.key"),
});
try {
  // The initiator signs …
  const request = await client.signed({
    kind: "sign",
    keyType: "ed25519",
    walletId: process.env["WALLET_ID"] ?? "treasury-1",
    txId: process.env["TX_ID"] ?? "payment-4711",
    tx: Buffer.from("pay 5 to Bob"),
  });
  let document = encodeRequest(request);

  // … each authorizer reads what is to be approved, decides, and signs …
  for (const name of (process.env["AUTHORIZERS"] ?? "alice,bob").split(",")) {
    const signer = await LocalSigner.read("ed25519", `./${name}.authorizer.key`);
    const asked = decodeRequest("sign", document);
    console.log(`${name} approves`, asked.kind === "sign" && Buffer.from(asked.tx ?? []).toString());
    document = encodeRequest(await approve(asked, name, signer));
  }

  // … and the initiator sends it as it is.
  const approved = decodeRequest("sign", document);
  if (approved.kind === "sign") {
    const result = await client.signAndWait(approved, { timeoutMs: 60_000 });
    console.log("signed:", result.txId);
  }
} finally {
  await client.close();
}
