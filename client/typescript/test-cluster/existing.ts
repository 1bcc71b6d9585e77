/**
 * What the existing TypeScript client (`@fystack/mpcium-ts` 0.3.2) puts on the bus, byte for byte, on the NATS library
 * that it uses: subjects, documents in its own order of fields, signatures over plain `JSON.stringify`, no headers, and
 * its streams and consumers where they are missing. The package itself is not in the registry.
 */

import assert from "node:assert/strict";
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";

import { AckPolicy, JSONCodec, NatsError, RetentionPolicy, connect } from "nats";
import type { ConsumerMessages, JetStreamManager, NatsConnection } from "nats";

const json = JSONCodec<Record<string, unknown>>();
const MAX_BYTES = 100 * 1024 * 1024;
/** The server's word for a stream whose subjects another stream has. */
const SUBJECTS_OVERLAP = 10065;

/** The results that it listens to: the durable consumer, what it filters, and what its stream captures if it makes it. */
const RESULTS = {
  keygen: { durable: "mpc_keygen_result", filter: "mpc.mpc_keygen_result.*", retention: RetentionPolicy.Interest },
  sign: { durable: "mpc_signing_result", filter: "mpc.mpc_signing_result.*", retention: RetentionPolicy.Interest },
  reshare: { durable: "mpc_reshare_result", filter: "mpc.mpc_reshare_result.*", retention: RetentionPolicy.Workqueue },
} as const;

/** A result document as the existing client hands it on: the JSON, with base64 text for bytes. */
export type ResultDocument = Record<string, unknown>;

/** A client that behaves like the existing one. */
export class ExistingClient {
  readonly connection: NatsConnection;
  readonly #key: KeyObject;
  readonly #listening: ConsumerMessages[] = [];

  private constructor(connection: NatsConnection, key: KeyObject) {
    this.connection = connection;
    this.#key = key;
  }

  static async connect(url: string, keyFile: string): Promise<ExistingClient> {
    const seed = (await readFile(keyFile, "utf8")).trim();
    const der = Buffer.from(`302e020100300506032b657004220420${seed}`, "hex");
    const connection = await connect({ servers: url });
    return new ExistingClient(connection, createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
  }

  #signature(text: string): string {
    return sign(null, Buffer.from(text), this.#key).toString("base64");
  }

  async #manager(): Promise<JetStreamManager> {
    return await this.connection.jetstreamManager();
  }

  async #ensureRequestStreams(): Promise<void> {
    const manager = await this.#manager();
    await manager.getAccountInfo();
    for (const [name, subject] of [
      ["mpc-keygen", "mpc.keygen_request.*"],
      ["mpc-signing", "mpc.signing_request.*"],
    ] as const) {
      await ensureStream(manager, name, subject, RetentionPolicy.Workqueue);
    }
  }

  async #publish(subject: string, document: Record<string, unknown>): Promise<void> {
    await this.#ensureRequestStreams();
    await this.connection.jetstream().publish(subject, json.encode(document));
  }

  /** Asks for a wallet. Without an id one is drawn, and the subject ends in the word `undefined`. */
  async createWallet(walletId?: string): Promise<string> {
    const id = walletId ?? randomUUID();
    await this.#publish(`mpc.keygen_request.${walletId}`, { wallet_id: id, signature: this.#signature(id) });
    return id;
  }

  /** Asks for a signature. */
  async sign(request: { walletId: string; keyType: string; networkInternalCode: string; tx: string }): Promise<string> {
    const txId = randomUUID();
    const signed = {
      key_type: request.keyType,
      wallet_id: request.walletId,
      network_internal_code: request.networkInternalCode,
      tx_id: txId,
      tx: request.tx,
    };
    const signature = this.#signature(JSON.stringify(signed));
    await this.#publish(`mpc.signing_request.${txId}`, { ...signed, signature });
    return txId;
  }

  /** Asks for a resharing, over core NATS: nothing says whether anybody heard it. */
  reshare(request: { walletId: string; nodeIds: string[]; newThreshold: number; keyType: string }): string {
    const sessionId = randomUUID();
    const signature = this.#signature(
      JSON.stringify({
        session_id: sessionId,
        node_ids: request.nodeIds,
        new_threshold: request.newThreshold,
        key_type: request.keyType,
        wallet_id: request.walletId,
      }),
    );
    const document = {
      session_id: sessionId,
      wallet_id: request.walletId,
      node_ids: request.nodeIds,
      new_threshold: request.newThreshold,
      key_type: request.keyType,
      signature,
    };
    this.connection.publish("mpc:reshare", json.encode(document));
    return sessionId;
  }

  /** Hands on every result of a kind, without a client id: those for all. */
  async listen(kind: keyof typeof RESULTS, heard: (result: ResultDocument) => void): Promise<void> {
    const { durable, filter, retention } = RESULTS[kind];
    const manager = await this.#manager();
    await ensureStream(manager, "mpc", filter, retention);
    try {
      await manager.consumers.info("mpc", durable);
    } catch {
      await manager.consumers.add("mpc", {
        durable_name: durable,
        ack_policy: AckPolicy.Explicit,
        filter_subject: filter,
        max_deliver: 3,
      });
    }
    const consumer = await this.connection.jetstream().consumers.get("mpc", durable);
    const messages = await consumer.consume();
    this.#listening.push(messages);
    void (async () => {
      for await (const message of messages) {
        try {
          heard(json.decode(message.data));
          message.ack();
        } catch {
          message.term();
        }
      }
    })();
  }

  async close(): Promise<void> {
    this.#listening.forEach((messages) => messages.stop());
    await this.connection.drain();
  }
}

async function ensureStream(
  manager: JetStreamManager,
  name: string,
  subject: string,
  retention: RetentionPolicy,
): Promise<void> {
  try {
    await manager.streams.info(name);
  } catch {
    try {
      await manager.streams.add({ name, subjects: [subject], retention, max_bytes: MAX_BYTES });
    } catch (error) {
      assert.ok(error instanceof NatsError && error.api_error?.err_code === SUBJECTS_OVERLAP, String(error));
    }
  }
}

/** Results by id, as they come in. */
export class Heard {
  readonly #results = new Map<string, ResultDocument>();
  readonly #waiting = new Map<string, (result: ResultDocument) => void>();

  /** Takes a result; `id` is the field that names it. */
  take(id: string): (result: ResultDocument) => void {
    return (result) => {
      const key = String(result[id]);
      this.#results.set(key, result);
      this.#waiting.get(key)?.(result);
    };
  }

  /** The result with this id, when it has come. */
  async of(id: string, patienceMs: number): Promise<ResultDocument> {
    const there = this.#results.get(id);
    if (there !== undefined) {
      return there;
    }
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.set(id, resolve);
        timer = setTimeout(() => reject(new Error(`no result for ${id} within ${patienceMs} ms`)), patienceMs);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }
}
