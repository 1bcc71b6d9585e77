/** The KMS signer against an emulator that is no part of this package: the end-to-end tests start it and say where. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { KmsSigner } from "../src/kms.js";

/** What the end-to-end tests say. */
interface Emulator {
  endpoint: string;
  region: string;
  id: string;
  arn: string;
  alias: string;
  public: string;
}

const said = process.env["MPCIUM_E2E"];
assert.ok(said, "MPCIUM_E2E is not set: `cargo test -p e2e --test typescript` runs these tests");
const emulator = JSON.parse(said) as Emulator;
const options = {
  region: emulator.region,
  endpoint: emulator.endpoint,
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
};

for (const name of ["id", "arn", "alias"] as const) {
  test(`a key that is named by its ${name} signs`, async () => {
    const signer = new KmsSigner({ ...options, keyId: emulator[name] });
    const key = await signer.publicKey();
    assert.equal(key.text(), emulator.public);
    for (const message of [Buffer.from("w"), Buffer.from("é\u2028"), Buffer.alloc(4096, 7)]) {
      const signature = await signer.sign(message);
      assert.ok(key.verifies(message, signature));
      assert.ok(!key.verifies(Buffer.from("another"), signature));
    }
    signer.close();
  });
}

test("a key that is not there is told", async () => {
  const signer = new KmsSigner({ ...options, keyId: "alias/nobody" });
  await assert.rejects(signer.sign(Buffer.from("w")), /alias\/nobody/);
  signer.close();
});
