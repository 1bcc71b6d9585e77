/**
 * Results as they arrive: durable listeners for one client id, and the private lane that waiting calls use.
 *
 * Invariant: a result is acknowledged only after it has been handed over, and a lane never consumes a result that
 * belongs to another client: its client id is its own.
 */

import { AckPolicy, DeliverPolicy, JetStreamApiCodes, JetStreamApiError } from "@nats-io/jetstream";
import type {
  ConsumerConfig,
  ConsumerInfo,
  ConsumerMessages,
  JetStreamClient,
  JetStreamManager,
  JsMsg,
} from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import type { NatsConnection } from "@nats-io/transport-node";

import type { Attesters } from "./attest.js";
import { BusError, ClosedError, DocumentError, messageOf } from "./errors.js";
import type { Prefix } from "./prefix.js";
import type { Kind } from "./request.js";
import { decodeResult } from "./result.js";
import type { ResultOf } from "./result.js";
import {
  RESULT_ACK_WAIT_SECONDS,
  RESULT_MAX_ACK_PENDING,
  RESULT_MAX_DELIVER,
  RESULT_STREAM,
  answeredSequence,
  resultDurable,
  resultFilter,
  unescapeToken,
} from "./subjects.js";

/** A private consumer without a reader for this long is removed by the server. */
const ABANDONED_AFTER_MS = 300_000;
/** The server says within this time that a reader's consumer is still there. */
const IDLE_HEARTBEAT_MS = 5_000;
/** How often the server is told that a result is still being worked on; it waits {@link RESULT_ACK_WAIT_SECONDS}. */
const WORKING_EVERY_MS = 10_000;
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 5_000;
/** The server's word for a consumer that is there, with another configuration. */
const CONSUMER_EXISTS: readonly number[] = [10013, 10105, 10148];

/** A connection with its JetStream interfaces. */
export interface Bus {
  /** The connection. */
  readonly connection: NatsConnection;
  /** For publishing and consuming. */
  readonly jetstream: JetStreamClient;
  /** For streams and consumers. */
  readonly manager: JetStreamManager;
  /** Whose signatures results must carry. */
  readonly attesters: Attesters | undefined;
  /** What stands before the cluster's names. */
  readonly prefix: Prefix;
}

/** One result of a listener. It is delivered again, three times at most, unless it is acknowledged. */
export class Received<K extends Kind> {
  /** The checked document. */
  readonly result: ResultOf[K];
  /**
   * The request's id as the subject tells it, where it does: the wallet for key generation, the session for resharing.
   */
  readonly requestId: string | undefined;
  readonly #message: JsMsg;

  /** @internal */
  constructor(result: ResultOf[K], requestId: string | undefined, message: JsMsg) {
    this.result = result;
    this.requestId = requestId;
    this.#message = message;
  }

  /** Removes the result from the queue, and waits until the server has done so. */
  async ack(): Promise<void> {
    try {
      await this.#message.ackAck();
    } catch (error) {
      throw new BusError("consumer", `the result could not be acknowledged: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Gives the result back, to be delivered again after a while. */
  nak(delayMs?: number): void {
    this.#message.nak(delayMs);
  }

  /** Tells the server that the result is still being worked on, so that it is not delivered again meanwhile. */
  working(): void {
    this.#message.working();
  }
}

/**
 * The results of one kind for one client id, as an endless iterator that outlives lost connections and consumers.
 * Several listeners with one client id share the results among them.
 *
 * A document that cannot be read is given back to the queue, and reported to `onError`.
 */
export class Results<K extends Kind> implements AsyncIterable<Received<K>> {
  readonly #bus: Bus;
  readonly #kind: K;
  readonly #clientId: string | undefined;
  readonly #onError: (error: unknown) => void;
  readonly #reader: Reader;

  private constructor(bus: Bus, kind: K, clientId: string | undefined, onError: (error: unknown) => void) {
    this.#bus = bus;
    this.#kind = kind;
    this.#clientId = clientId;
    this.#onError = onError;
    const ensure = () => ensureConsumer(this.#bus, this.#kind, this.#clientId, undefined);
    // One at a time: whoever is slow leaves the others to other listeners with the same id.
    this.#reader = new Reader(bus, ensure, 1, onError);
  }

  /** @internal */
  static async open<K extends Kind>(
    bus: Bus,
    kind: K,
    clientId: string | undefined,
    onError: (error: unknown) => void,
  ): Promise<Results<K>> {
    const results = new Results(bus, kind, clientId, onError);
    await results.#reader.open();
    return results;
  }

  /** The results, until {@link stop} is called or the connection is closed for good. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Received<K>, void, undefined> {
    for await (const message of this.#reader.messages()) {
      let result: ResultOf[K];
      try {
        this.#bus.attesters?.check(this.#kind, message.data);
      } catch (error) {
        // It gets no better by coming again.
        message.term();
        this.#onError(error);
        continue;
      }
      try {
        result = decodeResult(this.#kind, message.data);
      } catch (error) {
        // Whether or not this arrives, the server counts the delivery and gives up after the third.
        message.nak();
        this.#onError(error);
        continue;
      }
      yield new Received(result, lastToken(this.#kind, message.subject), message);
    }
  }

  /** Ends the iteration. What was not acknowledged comes again, here or elsewhere. */
  stop(): void {
    this.#reader.stop();
  }
}

/** A running handler of results. */
export class Listening {
  readonly #stop: () => void;
  readonly #ended: Promise<void>;

  private constructor(stop: () => void, ended: Promise<void>) {
    this.#stop = stop;
    this.#ended = ended;
  }

  /** @internal */
  static start<K extends Kind>(
    results: Results<K>,
    handle: (result: ResultOf[K]) => void | Promise<void>,
    onError: (error: unknown) => void,
  ): Listening {
    const run = async (): Promise<void> => {
      for await (const received of results) {
        const alive = setInterval(() => received.working(), WORKING_EVERY_MS);
        try {
          await handle(received.result);
          await received.ack();
        } catch (error) {
          received.nak();
          onError(error);
        } finally {
          clearInterval(alive);
        }
      }
    };
    return new Listening(() => results.stop(), run().catch(onError));
  }

  /** Ends it; resolves when a handler that runs has returned. */
  async stop(): Promise<void> {
    this.#stop();
    await this.#ended;
  }

  /** See {@link stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** A result for a waiting call, with the sequence of the request that it answers where the cluster says it. */
interface Delivered {
  /** The document. */
  readonly document: Uint8Array;
  /** The request's sequence. */
  readonly answers: number | undefined;
}

/** Calls that wait for results. */
export class Waiters {
  readonly #waiting = new Map<string, Set<Waiter>>();

  /** Starts to wait. */
  register(kind: Kind, walletId: string, requestId: string): Waiter {
    const key = JSON.stringify([kind, walletId, requestId]);
    const all = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, all);
    const waiter = new Waiter(() => {
      all.delete(waiter);
      if (all.size === 0 && this.#waiting.get(key) === all) {
        this.#waiting.delete(key);
      }
    });
    all.add(waiter);
    return waiter;
  }

  /** Hands a result to every call that waits for it. One that no call waits for is dropped: asking again helps. */
  deliver(kind: Kind, walletId: string, requestId: string, delivered: Delivered): void {
    for (const waiter of this.#waiting.get(JSON.stringify([kind, walletId, requestId])) ?? []) {
      waiter.deliver(delivered);
    }
  }
}

/** One waiting call. */
export class Waiter {
  readonly #forget: () => void;
  readonly #delivered: Delivered[] = [];
  #sequence: number | undefined;
  #accept: (document: Uint8Array) => unknown = () => undefined;
  /** Why the last answer was passed over. */
  passedOver: unknown;
  #resolve: ((document: Uint8Array) => void) | undefined;

  constructor(forget: () => void) {
    this.#forget = forget;
  }

  /**
   * The answer to the request with this sequence in its stream. A late answer to an earlier call with the same id is
   * passed over, where the cluster says which request it answers; and so is one that `accept` throws on.
   */
  answer(sequence: number, accept: (document: Uint8Array) => unknown): Promise<Uint8Array> {
    this.#sequence = sequence;
    this.#accept = accept;
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#delivered.forEach((delivered) => this.#offer(delivered));
    });
  }

  /** A result with the right ids. */
  deliver(delivered: Delivered): void {
    // The answer may come before the server has told the request's sequence.
    this.#delivered.push(delivered);
    this.#offer(delivered);
  }

  #offer({ document, answers }: Delivered): void {
    if (this.#resolve === undefined || (answers !== undefined && answers !== this.#sequence)) {
      return;
    }
    try {
      this.#accept(document);
    } catch (error) {
      this.passedOver = error;
      return;
    }
    this.#resolve(document);
  }

  /** Ends the wait. */
  end(): void {
    this.#forget();
  }
}

/** The private lane of one kind: a consumer of its own, whose results go to waiting calls. */
export class Lane {
  readonly #reader: Reader;

  private constructor(reader: Reader) {
    this.#reader = reader;
  }

  /** Makes the consumer, then starts to hand over. The client id must belong to nobody else. */
  static async open(bus: Bus, kind: Kind, clientId: string, waiters: Waiters): Promise<Lane> {
    const ensure = () => ensureConsumer(bus, kind, clientId, ABANDONED_AFTER_MS);
    const reader = new Reader(bus, ensure, 100, () => undefined);
    await reader.open();
    const lane = new Lane(reader);
    void lane.#run(kind, waiters);
    return lane;
  }

  async #run(kind: Kind, waiters: Waiters): Promise<void> {
    for await (const message of this.#reader.messages()) {
      handOver(kind, message, waiters);
      message.ack();
    }
  }

  /** Reads no more results. */
  stop(): void {
    this.#reader.stop();
  }
}

function handOver(kind: Kind, message: JsMsg, waiters: Waiters): void {
  let walletId: string;
  let requestId: string | undefined;
  try {
    const result = decodeResult(kind, message.data);
    walletId = result.walletId;
    requestId = "txId" in result ? result.txId : lastToken(kind, message.subject);
  } catch (error) {
    if (error instanceof DocumentError) {
      return;
    }
    throw error;
  }
  if (requestId !== undefined) {
    const messageId = message.headers?.get("Nats-Msg-Id");
    const answers = messageId ? answeredSequence(kind, messageId) : undefined;
    waiters.deliver(kind, walletId, requestId, { document: message.data, answers });
  }
}

function lastToken(kind: Kind, subject: string): string | undefined {
  if (kind === "sign") {
    return undefined;
  }
  const token = subject.slice(subject.lastIndexOf(".") + 1);
  return unescapeToken(token) ?? token;
}

/** Reads a consumer for ever: through lost connections, and through the consumer's removal by others. */
class Reader {
  readonly #bus: Bus;
  readonly #ensure: () => Promise<ConsumerInfo>;
  readonly #atOnce: number;
  readonly #onError: (error: unknown) => void;
  readonly #stopped = new AbortController();
  #current: ConsumerMessages | undefined;

  constructor(bus: Bus, ensure: () => Promise<ConsumerInfo>, atOnce: number, onError: (error: unknown) => void) {
    this.#bus = bus;
    this.#ensure = ensure;
    this.#atOnce = atOnce;
    this.#onError = onError;
    // Its timers would outlive the connection if nobody iterates.
    void bus.connection.closed().then(() => this.stop());
  }

  /** Makes the consumer and starts to read it. */
  async open(): Promise<void> {
    try {
      const info = await this.#ensure();
      const consumer = this.#bus.jetstream.consumers.getConsumerFromInfo(info);
      this.#current = await consumer.consume({
        max_messages: this.#atOnce,
        idle_heartbeat: IDLE_HEARTBEAT_MS,
        abort_on_missing_resource: true,
      });
    } catch (error) {
      if (this.#bus.connection.isClosed()) {
        throw new ClosedError();
      }
      throw new BusError("consumer", `results cannot be read: ${messageOf(error)}`, { cause: error });
    }
    if (this.#stopped.signal.aborted) {
      this.#current.stop();
    }
  }

  async *messages(): AsyncGenerator<JsMsg, void, undefined> {
    let wait = RETRY_MIN_MS;
    try {
      while (!this.#ended()) {
        try {
          if (this.#current === undefined) {
            await this.open();
          }
          for await (const message of this.#current ?? []) {
            if (this.#stopped.signal.aborted) {
              // Fetched ahead and not wanted any more: somebody else may have it at once.
              message.nak();
              continue;
            }
            wait = RETRY_MIN_MS;
            yield message;
          }
        } catch (error) {
          if (!this.#ended()) {
            this.#onError(error);
          }
        }
        this.#current = undefined;
        if (!this.#ended()) {
          await this.#pause(wait);
          wait = Math.min(wait * 2, RETRY_MAX_MS);
        }
      }
    } finally {
      this.stop();
    }
  }

  /** Ends the iteration at its next step. What has been fetched and not been handed out is given back there. */
  stop(): void {
    this.#stopped.abort();
    this.#current?.stop();
  }

  #ended(): boolean {
    return this.#stopped.signal.aborted || this.#bus.connection.isClosed();
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const signal = this.#stopped.signal;
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal.addEventListener("abort", end);
    });
  }
}

/**
 * Finds or makes the consumer of a client id's results. With `abandonedAfterMs` the server removes it when nobody reads.
 */
async function ensureConsumer(
  bus: Bus,
  kind: Kind,
  clientId: string | undefined,
  abandonedAfterMs: number | undefined,
): Promise<ConsumerInfo> {
  const name = resultDurable(kind, clientId);
  const filter = bus.prefix.subject(resultFilter(kind, clientId));
  const stream = bus.prefix.stream(RESULT_STREAM);
  const existing = await consumerInfo(bus, stream, name);
  if (existing !== undefined) {
    const { filter_subject: single, filter_subjects: several } = existing.config;
    if (single === filter || (several?.length === 1 && several[0] === filter)) {
      return existing;
    }
    return await bus.manager.consumers.update(stream, name, { filter_subject: "", filter_subjects: [filter] });
  }
  const config: Partial<ConsumerConfig> = {
    durable_name: name,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    ack_wait: nanos(RESULT_ACK_WAIT_SECONDS * 1000),
    max_deliver: RESULT_MAX_DELIVER,
    max_ack_pending: RESULT_MAX_ACK_PENDING,
    // The shared ones are spelled as the existing clients spell them, so that their updates change nothing.
    ...(abandonedAfterMs === undefined
      ? { filter_subjects: [filter] }
      : { filter_subject: filter, inactive_threshold: nanos(abandonedAfterMs) }),
  };
  try {
    return await bus.manager.consumers.add(stream, config);
  } catch (error) {
    // Somebody else made it in between.
    if (error instanceof JetStreamApiError && CONSUMER_EXISTS.includes(error.code)) {
      return await bus.manager.consumers.info(stream, name);
    }
    throw error;
  }
}

async function consumerInfo(bus: Bus, stream: string, name: string): Promise<ConsumerInfo | undefined> {
  try {
    return await bus.manager.consumers.info(stream, name);
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound) {
      return undefined;
    }
    throw error;
  }
}
