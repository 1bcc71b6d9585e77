/** A real nats-server for tests, and a scripted cluster on it. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { ConsumerMessages, JetStreamManager, StreamConfig } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import type { NatsConnection } from "@nats-io/transport-node";

import { LocalSigner, MpciumClient, decodeRequest, requestId, verifyInitiator } from "../src/index.js";
import type { ClientOptions, Kind, MpciumRequest } from "../src/index.js";
import { Prefix } from "../src/prefix.js";
import { escapeToken, requestStream } from "../src/subjects.js";

/** How long a test waits for what should happen soon. */
export const PATIENCE_MS = 30_000;
/** The initiator of all tests that have no real cluster. */
export const INITIATOR = LocalSigner.fromSeed(new Uint8Array(32).fill(7));

/** Waits until `look` gives a value. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined) {
      return found;
    }
    assert.ok(Date.now() < deadline, `waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Where nats-server is: named by `NATS_SERVER`, in the project's tools folder, or on the search path. */
function program(): string | undefined {
  const project = fileURLToPath(new URL("../../../../", import.meta.url));
  const tools = process.env["MPCIUM_TOOLS"] ?? join(project, ".tools");
  const folders = [join(tools, "bin"), ...(process.env["PATH"] ?? "").split(delimiter)];
  const candidates = folders.map((folder) => join(folder, "nats-server"));
  return [process.env["NATS_SERVER"], ...candidates].find((path) => path !== undefined && existsSync(path));
}

/** Why the tests with a server cannot run; `false` if they can. */
export const NO_SERVER: string | false =
  program() === undefined ? "there is no nats-server: run `make servers`, or set NATS_SERVER" : false;

/** A running nats-server with JetStream, on a free port, with its data in a temporary folder. */
export class Server {
  readonly url: string;
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #connections: NatsConnection[] = [];
  readonly #clusters: Cluster[] = [];

  private constructor(url: string, process: ChildProcess, folder: string) {
    this.url = url;
    this.#process = process;
    this.#folder = folder;
  }

  static async start(): Promise<Server> {
    const path = program();
    assert.ok(path !== undefined, String(NO_SERVER));
    const folder = await mkdtemp(join(tmpdir(), "mpcium-client-nats-"));
    const options = ["-js", "-a", "127.0.0.1", "-p", "-1", "-sd", folder, "--ports_file_dir", folder];
    const process = spawn(path, options, { stdio: "ignore" });
    const url = await eventually("the server's port", async () => {
      try {
        const file = await readFile(join(folder, `nats-server_${process.pid}.ports`), "utf8");
        return (JSON.parse(file) as { nats: string[] }).nats[0];
      } catch {
        return undefined;
      }
    });
    return new Server(url, process, folder);
  }

  async connect(): Promise<NatsConnection> {
    const connection = await connect({ servers: this.url });
    this.#connections.push(connection);
    return connection;
  }

  async manager(): Promise<JetStreamManager> {
    return await jetstreamManager(await this.connect());
  }

  async client(clientId?: ClientOptions["clientId"], prefix = ""): Promise<MpciumClient> {
    const options = clientId === undefined ? { prefix } : { clientId, prefix };
    return await MpciumClient.connect({ servers: this.url, signer: INITIATOR, ...options });
  }

  async consumers(): Promise<string[]> {
    const names: string[] = [];
    for await (const consumer of (await this.manager()).consumers.list("mpc")) {
      names.push(consumer.name);
    }
    return names.sort();
  }

  async streamConfig(name: string): Promise<StreamConfig> {
    return (await (await this.manager()).streams.info(name)).config;
  }

  /** A cluster that hands every request of a kind to the test. */
  async cluster(kind: Kind, prefix = ""): Promise<Cluster> {
    const cluster = await Cluster.open(await this.connect(), kind, new Prefix(prefix));
    this.#clusters.push(cluster);
    return cluster;
  }

  /** Ends everything. */
  async stop(): Promise<void> {
    this.#clusters.forEach((cluster) => cluster.stop());
    await Promise.allSettled(this.#connections.map((connection) => connection.close()));
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await ended;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** A request as it arrived. */
export interface Asked {
  request: MpciumRequest;
  client: string | undefined;
  sequence: number;
  subject: string;
}

/** Takes the requests of one kind, and answers as the test says. */
export class Cluster {
  readonly #connection: NatsConnection;
  readonly #kind: Kind;
  readonly #prefix: Prefix;
  readonly #messages: ConsumerMessages;
  readonly #iterator: AsyncIterator<import("@nats-io/jetstream").JsMsg>;

  private constructor(connection: NatsConnection, kind: Kind, prefix: Prefix, messages: ConsumerMessages) {
    this.#connection = connection;
    this.#kind = kind;
    this.#prefix = prefix;
    this.#messages = messages;
    this.#iterator = messages[Symbol.asyncIterator]();
  }

  static async open(connection: NatsConnection, kind: Kind, prefix: Prefix): Promise<Cluster> {
    const manager = await jetstreamManager(connection);
    const stream = prefix.stream(requestStream(kind));
    const name = { keygen: "mpc_keygen_consumer", sign: "mpc_signing_consumer", reshare: "mpc_reshare_consumer" }[kind];
    await manager.consumers.add(stream, { durable_name: name, ack_policy: "explicit" });
    const consumer = await jetstream(connection).consumers.get(stream, name);
    return new Cluster(connection, kind, prefix, await consumer.consume());
  }

  /** The next request, which the initiator must have signed. */
  async next(): Promise<Asked> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no ${this.#kind} request`)), PATIENCE_MS);
    });
    const next = await Promise.race([this.#iterator.next(), late]);
    clearTimeout(timer);
    assert.ok(next.done !== true);
    const message = next.value;
    await message.ackAck();
    const request = decodeRequest(this.#kind, message.data);
    assert.ok(verifyInitiator(INITIATOR.publicKey, request));
    const client = message.headers?.get("ClientID") || undefined;
    return { request, client, sequence: message.info.streamSequence, subject: message.subject };
  }

  /** Publishes an answer as a cluster does; `mark` keeps the server from taking it for a repetition. */
  async answer(asked: Asked, document: object, mark = ""): Promise<void> {
    const id = escapeToken(requestId(asked.request));
    const name = { keygen: "mpc_keygen_result", sign: "mpc_signing_result", reshare: "mpc_reshare_result" }[this.#kind];
    const scope = asked.client === undefined ? "" : `.${asked.client}`;
    const msgID = `mpc.${name}.${mark}${id}:${requestStream(this.#kind)}-${asked.sequence}-0`;
    const subject = `mpc.${name}${scope}.${this.#kind === "sign" ? "complete" : id}`;
    await jetstream(this.#connection).publish(this.#prefix.subject(subject), JSON.stringify(document), { msgID });
  }

  /** Takes no more requests. */
  stop(): void {
    this.#messages.stop();
  }
}

/** A wallet's creation, with keys that a test recognises. */
export function keygenSuccess(walletId: string, mark: number): object {
  const key = (length: number) => Buffer.alloc(length, mark).toString("base64");
  return {
    wallet_id: walletId,
    ecdsa_pub_key: key(64),
    eddsa_pub_key: key(32),
    result_type: "success",
    error_reason: "",
    error_code: "",
  };
}

/** An Ed25519 signature that a test recognises; no key made it. */
export function eddsaSuccess(walletId: string, txId: string, mark: number): object {
  const signature = Buffer.alloc(64, mark).toString("base64");
  return { ...signingError(walletId, txId, "", ""), result_type: "success", signature };
}

/** A refusal of a signing request. */
export function signingError(walletId: string, txId: string, code: string, reason: string): object {
  return {
    result_type: "error",
    error_code: code,
    error_reason: reason,
    is_timeout: false,
    network_internal_code: "",
    wallet_id: walletId,
    tx_id: txId,
    r: null,
    s: null,
    signature_recovery: null,
    signature: null,
  };
}
