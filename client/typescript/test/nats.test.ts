/** The client against a real nats-server and a scripted cluster. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { AnswerTimeoutError, BusError, ClosedError, MpciumClient, PrefixError, RefusedError, UnverifiedResultError } from "../src/index.js";
import type { KeygenResult, SignRequest } from "../src/index.js";
import { INITIATOR, NO_SERVER, Server, eddsaSuccess, eventually, keygenSuccess, signingError } from "./server.js";

const sign = (txId: string): SignRequest => ({ keyType: "ed25519", walletId: "w", txId, tx: Buffer.from("message") });

describe("the client on NATS", { skip: NO_SERVER }, () => {
  let server: Server;
  before(async () => {
    server = await Server.start();
  });
  after(async () => {
    await server.stop();
  });
  /** A server of its own for a test that counts consumers or streams. */
  const alone = async (context: { after(fn: () => Promise<void>): void }): Promise<Server> => {
    const own = await Server.start();
    context.after(() => own.stop());
    return own;
  };

  test("streams are made as existing clients make them, and left alone when they are there", async (context) => {
    const server = await alone(context);
    const manager = await server.manager();
    const threeMinutes = 180_000_000_000;
    await manager.streams.add({ name: "mpc-keygen", subjects: ["mpc.keygen_request.*"], max_age: threeMinutes });
    await (await server.client()).close();
    assert.equal((await server.streamConfig("mpc-keygen")).max_age, threeMinutes);
    const signing = await server.streamConfig("mpc-signing");
    assert.deepEqual(
      [signing.retention, signing.storage, signing.max_age, signing.max_bytes, signing.description, signing.subjects],
      ["limits", "file", 7 * 24 * 3600 * 1e9, 100_000_000, "Stream for mpc-signing", ["mpc.signing_request.*"]],
    );
    assert.equal((await server.streamConfig("mpc-reshare")).retention, "limits");
    const results = await server.streamConfig("mpc");
    assert.deepEqual([results.retention, results.max_age, results.max_bytes], ["workqueue", 0, 100_000_000]);
    assert.equal(results.subjects.length, 3);
    assert.deepEqual(await server.consumers(), []);
  });

  test("clusters that differ in their prefix share a server, and nothing else", async (context) => {
    const server = await alone(context);
    const prefixes = ["", "blue", "eu.blue"];
    const clients = [];
    const calls = [];
    const clusters = [];
    for (const prefix of prefixes) {
      const client = await server.client(undefined, prefix);
      clients.push(client);
      clusters.push(await server.cluster("keygen", prefix));
      calls.push(client.createWalletAndWait("w"));
    }
    for (const [number, cluster] of clusters.entries()) {
      await cluster.answer(await cluster.next(), keygenSuccess("w", number + 1));
    }
    for (const [number, call] of calls.entries()) {
      assert.deepEqual((await call).eddsaPubKey, new Uint8Array(32).fill(number + 1));
    }
    await Promise.all(clients.map((client) => client.close()));
    assert.deepEqual((await server.streamConfig("eu--blue-mpc-signing")).subjects, ["eu.blue.mpc.signing_request.*"]);
    for (const bad of ["a b", ".a", "mpc", "a--b"]) {
      await assert.rejects(server.client(undefined, bad), (error) => error instanceof PrefixError);
    }
  });

  test("one call asks and returns the answer, for ids of any content", async (context) => {
    const server = await alone(context);
    const client = await server.client();
    const keygen = await server.cluster("keygen");
    for (const id of ["plain", "dots.and spaces.*>", "émoji 😀:1", "%2E"]) {
      const call = client.createWalletAndWait(id);
      const asked = await keygen.next();
      assert.equal(asked.request.walletId, id);
      await keygen.answer(asked, keygenSuccess(id, 3));
      const wallet = await call;
      assert.equal(wallet.walletId, id);
      assert.deepEqual(wallet.eddsaPubKey, new Uint8Array(32).fill(3));
    }

    const signing = await server.cluster("sign");
    const signature = client.signAndWait(sign("t.1"));
    await signing.answer(await signing.next(), eddsaSuccess("w", "t.1", 5));
    const signed = await signature;
    assert.ok(signed.keyType === "ed25519");
    assert.deepEqual(signed.signature, new Uint8Array(64).fill(5));

    const resharing = await server.cluster("reshare");
    const moved = client.reshareAndWait({
      sessionId: "s.1", nodeIds: ["a", "b"], newThreshold: 2, keyType: "ed25519", walletId: "w",
    });
    const refusal = {
      wallet_id: "w", new_threshold: 2, key_type: "ed25519", pub_key: null, result_type: "error",
      error_reason: "no such wallet", error_code: "ERROR_KEY_NOT_FOUND",
    };
    const refused = assert.rejects(
      moved,
      (error) => error instanceof RefusedError && error.code === "ERROR_KEY_NOT_FOUND" && error.reason === "no such wallet",
    );
    await resharing.answer(await resharing.next(), refusal);
    await refused;

    const never = assert.rejects(client.createWalletAndWait("never"), ClosedError);
    await keygen.next();
    await client.close();
    await never;
    await assert.rejects(client.createWallet("later"), ClosedError);
    await assert.rejects(client.keygenResults(), ClosedError);
    assert.deepEqual(await server.consumers(), [], "own consumers stay behind");
  });

  test("a forged signature is not returned to whoever knows the wallet's keys", async () => {
    const client = await server.client();
    const cluster = await server.cluster("sign");
    const wallet = { ecdsaPubKey: new Uint8Array(64), eddsaPubKey: Buffer.from(INITIATOR.publicKey.text(), "hex") };
    const forged = assert.rejects(client.signAndWait(sign("forged"), { wallet }), UnverifiedResultError);
    await cluster.answer(await cluster.next(), eddsaSuccess("w", "forged", 5));
    await forged;
    cluster.stop();
    await client.close();
  });

  test("waiting calls and listeners never take each other's results", async (context) => {
    const server = await alone(context);
    const [first, second, unscoped] = [await server.client("svc-a"), await server.client("svc-a"), await server.client(null)];
    const cluster = await server.cluster("keygen");
    const named = await first.keygenResults();
    const all = await unscoped.keygenResults();
    const calls = [first, second, unscoped].map((client) => client.createWalletAndWait("same"));
    const asked = [await cluster.next(), await cluster.next(), await cluster.next()].reverse();
    for (const [at, one] of asked.entries()) {
      await cluster.answer(one, keygenSuccess("same", at + 1));
    }
    const marks = (await Promise.all(calls)).map((wallet) => wallet.eddsaPubKey[0] ?? 0);
    assert.deepEqual(marks.sort(), [1, 2, 3], "every call gets the answer to its own request");

    await second.createWallet("for-a");
    await unscoped.createWallet({ walletId: "for-all" });
    for (let count = 0; count < 2; count += 1) {
      const one = await cluster.next();
      assert.equal(one.client, one.request.walletId === "for-a" ? "svc-a" : undefined);
      await cluster.answer(one, keygenSuccess(one.request.walletId, 9));
    }
    for (const [listener, expected] of [[named, "for-a"], [all, "for-all"]] as const) {
      for await (const received of listener) {
        assert.equal(received.result.walletId, expected);
        assert.equal(received.requestId, expected);
        await received.ack();
        break;
      }
    }
    for (const client of [first, second, unscoped]) {
      await client.close();
    }
    assert.deepEqual(await server.consumers(), ["mpc_keygen_result", "mpc_keygen_result_svc_a"]);
    const config = (await (await server.manager()).consumers.info("mpc", "mpc_keygen_result_svc_a")).config;
    assert.deepEqual(
      [config.filter_subjects ?? [config.filter_subject], config.ack_policy, config.max_deliver, config.ack_wait],
      [["mpc.mpc_keygen_result.svc-a.*"], "explicit", 3, 30e9],
    );
  });

  test("a late answer is not taken for the next call's", async () => {
    const client = await server.client();
    const cluster = await server.cluster("sign");
    await assert.rejects(client.signAndWait(sign("late"), { timeoutMs: 300 }), (error) => {
      return error instanceof AnswerTimeoutError && error.kind === "sign" && error.requestId === "late";
    });
    const first = await cluster.next();
    const call = client.signAndWait({ ...sign("late"), tx: Buffer.from("another message") });
    const refused = assert.rejects(call, (error) => error instanceof RefusedError && error.code === "ERROR_SESSION_DUPLICATE");
    const second = await cluster.next();
    await cluster.answer(first, eddsaSuccess("w", "late", 1));
    await cluster.answer(second, signingError("w", "late", "ERROR_SESSION_DUPLICATE", "taken"));
    await refused;
    cluster.stop();
    await client.close();
  });

  test("a signal ends the wait with its reason", async () => {
    const client = await server.client();
    const cluster = await server.cluster("sign");
    const controller = new AbortController();
    const call = client.signAndWait(sign("aborted"), { signal: controller.signal });
    const aborted = assert.rejects(call, /enough/);
    await cluster.next();
    controller.abort(new Error("enough"));
    await aborted;
    await assert.rejects(client.signAndWait(sign("never sent"), { signal: controller.signal }), /enough/);
    await assert.rejects(client.signAndWait(sign("gone"), { signal: AbortSignal.timeout(200) }), { name: "TimeoutError" });
    cluster.stop();
    await client.close();
  });

  test("a handler that fails gets the result again", async () => {
    const client = await server.client();
    const cluster = await server.cluster("sign");
    const problems: unknown[] = [];
    const seen: string[] = [];
    const listening = await client.onSignResult(
      async (result) => {
        seen.push(result.txId);
        if (seen.length === 1) {
          throw new Error("the first time it fails");
        }
      },
      { onError: (error) => problems.push(error) },
    );
    await client.sign(sign("again"));
    const asked = await cluster.next();
    assert.equal(asked.client, client.clientId);
    assert.equal(asked.subject, "mpc.signing_request.again");
    assert.equal(asked.request.fullSignature?.clientId, client.clientId);
    const validFor = (asked.request.fullSignature?.expiresAt ?? 0) - Date.now();
    assert.ok(validFor > 0 && validFor <= 3_600_000, `valid for ${validFor} ms`);
    await cluster.answer(asked, eddsaSuccess("w", "again", 1));
    await eventually("the second delivery", () => (seen.length >= 2 ? true : undefined));
    await listening.stop();
    assert.deepEqual(seen, ["again", "again"]);
    assert.match(String(problems[0]), /the first time it fails/);
    cluster.stop();
    await client.close();
  });

  test("garbage among the results is reported and passed over", async () => {
    const client = await server.client("garbage");
    const problems: unknown[] = [];
    const seen: KeygenResult[] = [];
    const listening = await client.onKeygenResult((result) => void seen.push(result), {
      onError: (error) => problems.push(error),
    });
    const connection = await server.connect();
    for (const document of ["{", '{"result_type":"success"}', JSON.stringify(keygenSuccess("good", 1))]) {
      connection.publish("mpc.mpc_keygen_result.garbage.w", document);
    }
    await eventually("the good one", () => (seen.length > 0 ? true : undefined));
    assert.equal(seen[0]?.walletId, "good");
    assert.ok(problems.length >= 1);
    await listening.stop();
    await client.close();
  });

  test("listeners and calls outlive the removal of their consumers", async () => {
    const client = await server.client("removed");
    const cluster = await server.cluster("keygen");
    const seen: string[] = [];
    const listening = await client.onKeygenResult((result) => void seen.push(result.walletId));
    const manager = await server.manager();
    for (const wallet of ["before", "after"]) {
      await client.createWallet(wallet);
      const asked = await cluster.next();
      await cluster.answer(asked, keygenSuccess(wallet, 1));
      await eventually(`the result of ${wallet}`, () => (seen.at(-1) === wallet ? true : undefined));
      const call = client.createWalletAndWait(`waits ${wallet}`);
      await cluster.answer(await cluster.next(), keygenSuccess(`waits ${wallet}`, 1));
      assert.equal((await call).walletId, `waits ${wallet}`);
      for (const name of (await server.consumers()).filter((name) => /_removed$|_call_/.test(name))) {
        await manager.consumers.delete("mpc", name);
      }
    }
    await listening.stop();
    cluster.stop();
    await client.close();
  });

  test("what cannot work is refused before anything is sent", async () => {
    await assert.rejects(server.client("a.b"), { name: "ClientIdError" });
    const connection = await server.connect();
    await assert.rejects(MpciumClient.over(connection, { signer: INITIATOR, clientId: " " }), { name: "ClientIdError" });
    const client = await MpciumClient.over(connection, { signer: INITIATOR, clientId: null });
    const count = async () => (await (await server.manager()).streams.info("mpc-signing")).state.messages;
    const before = await count();
    await assert.rejects(client.createWallet("{}"), { name: "InvalidRequestError", field: "wallet_id" });
    const hardened = { ...sign("t"), derivationPath: [2 ** 31] };
    await assert.rejects(client.signAndWait(hardened), { name: "InvalidRequestError", field: "derivation_path" });
    assert.equal(await count(), before);
    await client.close();
    assert.ok(!connection.isClosed(), "a borrowed connection stays open");
  });

  test("a bus that does not answer is named", async () => {
    const connection = await server.connect();
    await connection.drain();
    await assert.rejects(MpciumClient.over(connection, { signer: INITIATOR }), (error) => error instanceof BusError);
  });

  test("the end of a borrowed connection ends waiting calls and listeners", async () => {
    const connection = await server.connect();
    const client = await MpciumClient.over(connection, { signer: INITIATOR });
    const cluster = await server.cluster("sign");
    const results = await client.signingResults();
    const heard = (async () => {
      for await (const received of results) {
        assert.fail(`nobody answered, but ${received.result.txId} was heard`);
      }
    })();
    const call = assert.rejects(client.signAndWait(sign("lost")), ClosedError);
    await cluster.next();
    await connection.close();
    await call;
    await heard;
    await assert.rejects(client.sign(sign("later")), ClosedError);
    cluster.stop();
  });
});
