/**
 * The client: asks a cluster for wallets, signatures and resharings, and waits for the answers.
 *
 * Two ways to use it. `createWallet`, `sign` and `reshare` resolve when the request is in the queue; results arrive at a
 * listener. The `…AndWait` calls resolve with the result. They use a private client id, so they neither take results from
 * listeners nor from other clients, and they register before they publish, so no result is missed. Giving up on any call
 * is safe: the request may still be carried out, and asking again is answered again.
 */

import { JetStreamApiError, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { connect, headers, nanos, nuid } from "@nats-io/transport-node";
import type { NatsConnection, NodeConnectionOptions } from "@nats-io/transport-node";

import type { Attesters } from "./attest.js";
import { verifySignature } from "./chains.js";
import type { WalletKeys } from "./chains.js";
import {
  AnswerTimeoutError,
  BusError,
  ClosedError,
  InvalidRequestError,
  NotAttestedError,
  RefusedError,
  messageOf,
} from "./errors.js";
import { fullBytes } from "./full.js";
import type { FullSignature } from "./full.js";
import { Lane, Listening, Results, Waiters } from "./listen.js";
import type { Bus } from "./listen.js";
import { Prefix } from "./prefix.js";
import { WALLET_QUERY_SUBJECT, encodeQuery, querySignedBytes, readReply } from "./query.js";
import type { WalletInfo } from "./query.js";
import {
  KINDS,
  canonicalBytes,
  encodeRequest,
  needsFullSignature,
  requestId,
  validateRequest,
} from "./request.js";
import type { KeygenRequest, Kind, MpciumRequest, ReshareRequest, SignRequest } from "./request.js";
import { decodeResult, refused } from "./result.js";
import type { KeygenSuccess, ReshareSuccess, ResultOf, SigningSuccess } from "./result.js";
import type { Signer } from "./signer.js";
import {
  CLIENT_ID_HEADER,
  DUPLICATE_WINDOW_SECONDS,
  RESULT_STREAM,
  STREAMS,
  STREAM_BYTES_MAX,
  checkClientId,
  requestSubject,
  resultDurable,
} from "./subjects.js";
import type { StreamSpec } from "./subjects.js";

const VALID_FOR_MS = 3_600_000;
const DEFAULT_QUERY_TIMEOUT_MS = 15_000;
/** A query without a reply for so long is sent again. */
const QUERY_REPEAT_MS = 5_000;
/**
 * A queue that does not take a request is tried again for so long: the servers of a NATS cluster need some ten seconds to
 * agree on who takes the place of one that has died. Well below the time for which repetitions are recognised.
 */
const PUBLISH_PATIENCE_MS = 40_000;
const PUBLISH_RETRY_MIN_MS = 250;
const PUBLISH_RETRY_MAX_MS = 2_000;
/** The server's word for a stream that is there, with another configuration. */
const STREAM_NAME_IN_USE = 10058;

/** How long the waiting calls wait by default: a little longer than clusters take to answer at the latest. */
export const DEFAULT_TIMEOUT_MS: Readonly<Record<Kind, number>> = {
  keygen: 16 * 60_000,
  sign: 200_000,
  reshare: 31 * 60_000,
};

/** How a client behaves. */
export interface ClientOptions {
  /** Signs the requests: the cluster's initiator. */
  signer: Signer;
  /**
   * Whose results the listeners receive. Absent: nobody else's; an id is drawn, and its consumers are removed when the
   * client is closed. Text: those of every client with this id, which share them; the consumers stay, so results wait
   * for the next start. `null`: those of every client without an id, as the existing clients work by default.
   */
  clientId?: string | null;
  /**
   * Whether requests carry a signature over all fields, an id and an expiry beside the one that every cluster
   * understands. Clusters with `require_full_signature: true` take no others; those of the existing system ignore it.
   * Requests with {@link SignRequest.hash} are not made without. Default: yes.
   */
  fullSignatures?: boolean;
  /** How long a request with a full signature is valid from the moment it is signed. Default: an hour. */
  validForMs?: number;
  /**
   * The cluster's nodes: with them, only answers that enough of them have signed are believed. Others are passed over by
   * calls that wait, which reject with {@link NotAttestedError} if nothing better comes in time, and are removed and
   * reported by listeners. Default: answers are believed as the bus brings them.
   */
  attesters?: Attesters;
  /** What stands before the cluster's names on a NATS that it shares with others: the nodes' `nats.prefix`. */
  prefix?: string;
}

/** How a call waits for its result. */
export interface WaitOptions {
  /** How long. Default: {@link DEFAULT_TIMEOUT_MS}. */
  timeoutMs?: number;
  /** Ends the wait; the call rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** How a call for a signature waits for its result, and checks it. */
export interface SignOptions extends WaitOptions {
  /** The wallet's public keys: with them the signature is verified before the call resolves. */
  wallet?: WalletKeys;
  /** The cluster's chain code, needed to verify a signature by a child key. */
  chainCode?: Uint8Array;
}

/** How a listener behaves. */
export interface ListenOptions {
  /**
   * Told of what goes wrong while listening: documents that are no results, failing handlers, lost consumers. The
   * listener goes on. Default: nobody is told.
   */
  onError?: (error: unknown) => void;
}

/** A client of one cluster. */
export class MpciumClient {
  /** The id under which listeners receive; `undefined` if they receive what has no id. */
  readonly clientId: string | undefined;
  readonly #bus: Bus;
  readonly #signer: Signer;
  /** For how long full signatures are valid, if there are any. */
  readonly #validForMs: number | undefined;
  readonly #ownsConnection: boolean;
  readonly #generated: boolean;
  readonly #privateId = `call-${nuid.next()}`;
  readonly #waiters = new Waiters();
  readonly #lanes = new Map<Kind, Promise<Lane>>();
  readonly #listeners = new Set<{ stop(): void | Promise<void> }>();
  readonly #closed = new AbortController();

  private constructor(bus: Bus, options: ClientOptions, ownsConnection: boolean) {
    this.#bus = bus;
    this.#signer = options.signer;
    this.#validForMs = options.fullSignatures === false ? undefined : (options.validForMs ?? VALID_FOR_MS);
    this.#ownsConnection = ownsConnection;
    this.#generated = options.clientId === undefined;
    this.clientId = options.clientId === undefined ? `client-${nuid.next()}` : (options.clientId ?? undefined);
    void bus.connection.closed().then(() => this.#closed.abort(new ClosedError()));
  }

  /**
   * Connects to NATS and makes a client, and the cluster's streams where they are missing. The connection ends with the
   * client.
   *
   * @throws {@link ClientIdError} or {@link PrefixError} for what cannot be used, {@link BusError} if a stream is missing and cannot be
   * made, and what NATS's `connect` throws.
   */
  static async connect(options: ClientOptions & NodeConnectionOptions): Promise<MpciumClient> {
    checkOptions(options);
    const { signer: _signer, clientId: _clientId, fullSignatures: _full, ...others } = options;
    const { validForMs: _valid, attesters: _attesters, prefix: _prefix, ...nats } = others;
    const connection = await connect({ name: "mpcium-client", maxReconnectAttempts: -1, ...nats });
    try {
      return await MpciumClient.#over(connection, options, true);
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  /**
   * Makes a client over a connection, which stays the caller's, and the cluster's streams where they are missing.
   * Streams that are there are used as they are; none is changed or removed.
   *
   * @throws {@link ClientIdError} or {@link PrefixError} for what cannot be used, {@link BusError} if a stream is missing and cannot be
   * made.
   */
  static async over(connection: NatsConnection, options: ClientOptions): Promise<MpciumClient> {
    checkOptions(options);
    return await MpciumClient.#over(connection, options, false);
  }

  static async #over(connection: NatsConnection, options: ClientOptions, owns: boolean): Promise<MpciumClient> {
    const manager = await jetstreamManager(connection, { checkAPI: false });
    const { attesters } = options;
    const prefix = new Prefix(options.prefix);
    const bus: Bus = { connection, jetstream: jetstream(connection), manager, attesters, prefix };
    for (const stream of STREAMS) {
      await ensureStream(bus, stream);
    }
    return new MpciumClient(bus, options, owns);
  }

  /**
   * Checks a request and puts the initiator's signatures in. For authorizers, who sign what the initiator signed (see
   * {@link approve}); a request that has a signature is sent as it is.
   *
   * @throws {@link InvalidRequestError} or {@link SignerError}.
   */
  async signed<R extends MpciumRequest>(request: R): Promise<R> {
    // Whoever sends it decides where the answer goes.
    return await this.#signed(request, undefined);
  }

  /** Puts the signatures in that are missing; the full one covers the client id if there is one. */
  async #signed<R extends MpciumRequest>(request: R, clientId: string | undefined): Promise<R> {
    validateRequest(request);
    if (request.signature?.length) {
      return request;
    }
    const signed = { ...request };
    if (this.#validForMs !== undefined) {
      const fullSignature: FullSignature = {
        requestId: nuid.next(),
        expiresAt: Date.now() + Math.ceil(this.#validForMs),
        ...(clientId === undefined ? {} : { clientId }),
        signature: null,
      };
      signed.fullSignature = fullSignature;
      validateRequest(signed);
      fullSignature.signature = await this.#signer.sign(fullBytes(signed) ?? new Uint8Array());
    } else if (needsFullSignature(request)) {
      throw new InvalidRequestError("hash", "needs a full signature, which this client is told not to make");
    }
    signed.signature = await this.#signer.sign(canonicalBytes(request));
    return signed;
  }

  /** Asks for a wallet. The result goes to {@link keygenResults}. */
  async createWallet(wallet: string | KeygenRequest): Promise<void> {
    await this.submit({ kind: "keygen", ...keygenRequest(wallet) });
  }

  /** Asks for a signature. The result goes to {@link signingResults}. */
  async sign(request: SignRequest): Promise<void> {
    await this.submit({ kind: "sign", ...request });
  }

  /** Asks to move a key to another committee. The result goes to {@link reshareResults}. */
  async reshare(request: ReshareRequest): Promise<void> {
    await this.submit({ kind: "reshare", ...request });
  }

  /**
   * Puts a request of any kind into its queue. The result goes to the listener of its kind.
   *
   * @throws {@link InvalidRequestError}, {@link SignerError}, {@link BusError} if the queue does not take it, or
   * {@link ClosedError}.
   */
  async submit(request: MpciumRequest): Promise<void> {
    await this.#publish(await this.#signed(request, this.clientId), this.clientId);
  }

  /**
   * Creates a wallet and returns its public keys. Asking again for a wallet that exists returns the same keys.
   *
   * @throws as {@link submit}, and {@link RefusedError} or {@link AnswerTimeoutError}.
   */
  async createWalletAndWait(wallet: string | KeygenRequest, options: WaitOptions = {}): Promise<KeygenSuccess> {
    return succeeded(await this.#ask({ kind: "keygen", ...keygenRequest(wallet) }, options));
  }

  /**
   * Signs and returns the signature; with `options.wallet` it has been verified.
   *
   * @throws as {@link submit}, and {@link RefusedError}, {@link AnswerTimeoutError} or {@link UnverifiedResultError}.
   */
  async signAndWait(request: SignRequest, options: SignOptions = {}): Promise<SigningSuccess> {
    const result = succeeded(await this.#ask({ kind: "sign", ...request }, options));
    if (options.wallet !== undefined) {
      verifySignature(result, request, options.wallet, options.chainCode);
    }
    return result;
  }

  /**
   * Moves a key and returns when the new committee holds it.
   *
   * @throws as {@link submit}, and {@link RefusedError} or {@link AnswerTimeoutError}.
   */
  async reshareAndWait(request: ReshareRequest, options: WaitOptions = {}): Promise<ReshareSuccess> {
    return succeeded(await this.#ask({ kind: "reshare", ...request }, options));
  }

  /**
   * Asks for a wallet that exists: its public keys, threshold, committee and epoch. With {@link ClientOptions.attesters}
   * the keys must carry as many members' signatures as a success needs. Default of `timeoutMs`: 15 s.
   *
   * @throws {@link RefusedError}, with `ERROR_KEY_NOT_FOUND` if the cluster does not know it; {@link BusError} if nobody
   * replies in time; {@link NotAttestedError}, {@link InvalidRequestError}, {@link SignerError} or {@link ClosedError}.
   */
  async wallet(walletId: string, options: WaitOptions = {}): Promise<WalletInfo> {
    validateRequest({ kind: "keygen", walletId });
    const timeoutMs = options.timeoutMs ?? DEFAULT_QUERY_TIMEOUT_MS;
    const late = new BusError("query", `no reply to the query for a wallet within ${timeoutMs} ms`);
    const query = { walletId, requestId: nuid.next(), expiresAt: Date.now() + timeoutMs };
    const patience = new Patience(timeoutMs, late, [this.#closed.signal, options.signal]);
    let problem: unknown = late;
    try {
      const document = encodeQuery(query, await patience.wait(this.#signer.sign(querySignedBytes(query))));
      for (;;) {
        try {
          const connection = this.#bus.connection;
          const subject = this.#bus.prefix.subject(WALLET_QUERY_SUBJECT);
          const ask = connection.request(subject, document, { timeout: QUERY_REPEAT_MS });
          const reply = readReply(query, (await patience.wait(ask)).data, this.#bus.attesters);
          if (reply?.success === true) {
            return reply;
          } else if (reply !== undefined) {
            throw refused(reply);
          }
        } catch (error) {
          const over = error === late || error instanceof RefusedError || options.signal?.aborted === true;
          if (over || this.#closed.signal.aborted || this.#bus.connection.isClosed()) {
            throw error;
          }
          problem = error instanceof NotAttestedError ? error : problem;
        }
        // A node that stops may take a query with it, and at first there may be none.
        await patience.wait(new Promise((resolve) => setTimeout(resolve, PUBLISH_RETRY_MIN_MS)));
      }
    } catch (error) {
      throw error === late ? problem : error;
    } finally {
      patience.end();
    }
  }

  /** Listens for results of key generation, one by one. */
  async keygenResults(options: ListenOptions = {}): Promise<Results<"keygen">> {
    return await this.#results("keygen", options);
  }

  /** Listens for results of signing, one by one. */
  async signingResults(options: ListenOptions = {}): Promise<Results<"sign">> {
    return await this.#results("sign", options);
  }

  /** Listens for results of resharing, one by one. */
  async reshareResults(options: ListenOptions = {}): Promise<Results<"reshare">> {
    return await this.#results("reshare", options);
  }

  /**
   * Calls a function with every result of key generation. The result is acknowledged when the function has returned (or
   * its promise has resolved); if it throws, the result comes again, three times at most.
   */
  async onKeygenResult(
    handle: (result: ResultOf["keygen"]) => void | Promise<void>,
    options: ListenOptions = {},
  ): Promise<Listening> {
    return await this.#listen("keygen", handle, options);
  }

  /** As {@link onKeygenResult}, for results of signing. */
  async onSignResult(
    handle: (result: ResultOf["sign"]) => void | Promise<void>,
    options: ListenOptions = {},
  ): Promise<Listening> {
    return await this.#listen("sign", handle, options);
  }

  /** As {@link onKeygenResult}, for results of resharing. */
  async onReshareResult(
    handle: (result: ResultOf["reshare"]) => void | Promise<void>,
    options: ListenOptions = {},
  ): Promise<Listening> {
    return await this.#listen("reshare", handle, options);
  }

  /**
   * Ends the listeners and removes the consumers that belong to this client alone: calls that wait, and later ones,
   * reject with {@link ClosedError}. A connection that {@link connect} made is closed.
   */
  async close(): Promise<void> {
    this.#closed.abort(new ClosedError());
    const lanes = await Promise.allSettled(this.#lanes.values());
    lanes.forEach((lane) => (lane.status === "fulfilled" ? lane.value.stop() : undefined));
    await Promise.allSettled([...this.#listeners].map(async (listener) => listener.stop()));
    if (!this.#bus.connection.isClosed()) {
      await this.#removeOwnConsumers();
    }
    if (this.#ownsConnection) {
      await this.#bus.connection.close();
    }
  }

  /** See {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #results<K extends Kind>(kind: K, options: ListenOptions): Promise<Results<K>> {
    this.#closed.signal.throwIfAborted();
    const results = await Results.open(this.#bus, kind, this.clientId, options.onError ?? (() => undefined));
    this.#listeners.add(results);
    return results;
  }

  async #listen<K extends Kind>(
    kind: K,
    handle: (result: ResultOf[K]) => void | Promise<void>,
    options: ListenOptions,
  ): Promise<Listening> {
    const results = await this.#results(kind, options);
    const listening = Listening.start(results, handle, options.onError ?? (() => undefined));
    this.#listeners.delete(results);
    this.#listeners.add(listening);
    return listening;
  }

  /** Publishes under the private client id and waits for the answer to exactly this request. */
  async #ask<R extends MpciumRequest>(request: R, options: WaitOptions): Promise<ResultOf[R["kind"]]> {
    const kind: R["kind"] = request.kind;
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS[kind];
    const late = new AnswerTimeoutError(kind, requestId(request), timeoutMs);
    const patience = new Patience(timeoutMs, late, [this.#closed.signal, options.signal]);
    try {
      const signed = await patience.wait(this.#signed(request, this.#privateId));
      await patience.wait(this.#lane(kind));
      const waiter = this.#waiters.register(kind, request.walletId, requestId(request));
      try {
        const sequence = await patience.wait(this.#publish(signed, this.#privateId, patience));
        const answer = waiter.answer(sequence, (document) => this.#bus.attesters?.check(kind, document));
        return decodeResult(kind, await patience.wait(answer));
      } catch (error) {
        throw error === late && waiter.passedOver !== undefined ? waiter.passedOver : error;
      } finally {
        waiter.end();
      }
    } finally {
      patience.end();
    }
  }

  /** The private lane of a kind; a lane that could not be opened is tried again by the next call. */
  #lane(kind: Kind): Promise<Lane> {
    let lane = this.#lanes.get(kind);
    if (lane === undefined) {
      lane = Lane.open(this.#bus, kind, this.#privateId, this.#waiters);
      this.#lanes.set(kind, lane);
      lane.catch(() => this.#lanes.delete(kind));
    }
    return lane;
  }

  /**
   * Puts a request into its queue and returns its sequence there. Repeats are recognised by the server; there are none
   * once nobody waits any more.
   */
  async #publish(request: MpciumRequest, clientId: string | undefined, patience?: Patience): Promise<number> {
    const subject = this.#bus.prefix.subject(requestSubject(request.kind, requestId(request)));
    const document = encodeRequest(request);
    const header = headers();
    if (clientId !== undefined) {
      header.set(CLIENT_ID_HEADER, clientId);
    }
    const msgID = nuid.next();
    const began = performance.now();
    for (let wait = PUBLISH_RETRY_MIN_MS; ; wait = Math.min(wait * 2, PUBLISH_RETRY_MAX_MS)) {
      this.#closed.signal.throwIfAborted();
      try {
        const acknowledgement = await this.#bus.jetstream.publish(subject, document, { headers: header, msgID });
        return acknowledgement.seq;
      } catch (error) {
        this.#closed.signal.throwIfAborted();
        if (patience?.ended === true || performance.now() - began >= PUBLISH_PATIENCE_MS) {
          const problem = `the request could not be put into the queue: ${messageOf(error)}`;
          throw new BusError("publish", problem, { cause: error });
        }
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  async #removeOwnConsumers(): Promise<void> {
    const names = KINDS.flatMap((kind) => [
      ...(this.#lanes.has(kind) ? [resultDurable(kind, this.#privateId)] : []),
      ...(this.#generated ? [resultDurable(kind, this.clientId)] : []),
    ]);
    // One that was never made is not there to be removed; others the server forgets by itself.
    const stream = this.#bus.prefix.stream(RESULT_STREAM);
    await Promise.allSettled(names.map((name) => this.#bus.manager.consumers.delete(stream, name)));
  }
}

function checkOptions(options: ClientOptions): void {
  if (typeof options.clientId === "string") {
    checkClientId(options.clientId);
  }
  new Prefix(options.prefix);
}

function keygenRequest(wallet: string | KeygenRequest): KeygenRequest {
  return typeof wallet === "string" ? { walletId: wallet } : wallet;
}

function succeeded<R extends ResultOf[Kind]>(result: R): Extract<R, { success: true }> {
  if (!result.success) {
    throw refused(result);
  }
  return result as Extract<R, { success: true }>;
}

/** A time limit and signals, for one call of several steps. */
class Patience {
  readonly #timer: NodeJS.Timeout;
  readonly #signals: readonly AbortSignal[];
  readonly #onAbort: (event: Event) => void;
  readonly #over: Promise<never>;
  /** Whether the call is over, whatever came of it. */
  ended = false;

  constructor(timeoutMs: number, late: Error, signals: readonly (AbortSignal | undefined)[]) {
    this.#signals = signals.filter((signal) => signal !== undefined);
    this.#signals.forEach((signal) => signal.throwIfAborted());
    let fail: (reason: unknown) => void = () => undefined;
    this.#over = new Promise((_, reject) => {
      fail = reject;
    });
    // Nobody may be waiting when it ends.
    this.#over.catch(() => undefined);
    this.#timer = setTimeout(() => fail(late), timeoutMs);
    this.#onAbort = (event) => fail((event.target as AbortSignal).reason);
    this.#signals.forEach((signal) => signal.addEventListener("abort", this.#onAbort));
  }

  /** A step's outcome, or the end of patience. */
  wait<T>(step: Promise<T>): Promise<T> {
    return Promise.race([step, this.#over]);
  }

  end(): void {
    this.ended = true;
    clearTimeout(this.#timer);
    this.#signals.forEach((signal) => signal.removeEventListener("abort", this.#onAbort));
  }
}

async function ensureStream(bus: Bus, spec: StreamSpec): Promise<void> {
  const name = bus.prefix.stream(spec.name);
  try {
    await bus.manager.streams.info(name);
    return;
  } catch {
    // Missing, or not to be seen: making it tells.
  }
  try {
    await bus.manager.streams.add({
      name,
      description: `Stream for ${spec.name}`,
      subjects: spec.subjects.map((subject) => bus.prefix.subject(subject)),
      retention: spec.retention === "limits" ? RetentionPolicy.Limits : RetentionPolicy.Workqueue,
      max_age: nanos(spec.maxAgeSeconds * 1000),
      max_bytes: STREAM_BYTES_MAX,
      duplicate_window: nanos(DUPLICATE_WINDOW_SECONDS * 1000),
      storage: StorageType.File,
    });
  } catch (error) {
    // Somebody else made it in between, perhaps with other limits.
    if (!(error instanceof JetStreamApiError && error.code === STREAM_NAME_IN_USE)) {
      throw new BusError("stream", `stream ${name}: ${messageOf(error)}`, { cause: error });
    }
  }
}
