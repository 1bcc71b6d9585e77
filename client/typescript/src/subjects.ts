/**
 * Where everything is on NATS: streams, subjects and consumers, as plain data.
 *
 * Names, filters and retention are those of the existing system and may not change: its clients send their own
 * configuration as an update when they start, and the server refuses to change a stream's retention.
 * Invariant: ids of any content make exactly one subject token, plain ids themselves, different ids different tokens.
 */

import { ClientIdError } from "./errors.js";
import { encodeUtf8 } from "./gojson.js";
import type { Kind } from "./request.js";

/** Header with the client's id on requests. Case matters. */
export const CLIENT_ID_HEADER = "ClientID";
/** Bytes of a client id: the server takes names of at most 255 bytes for the consumers that carry it. */
export const CLIENT_ID_BYTES_MAX = 255 - "mpc_signing_result_".length;

/** A stream. All of them: file storage, oldest discarded first, duplicates recognised for two minutes. */
export interface StreamSpec {
  /** Its name. */
  readonly name: string;
  /** What it captures. */
  readonly subjects: readonly string[];
  /** How it forgets: by age and size, or when acknowledged. Can never be changed. */
  readonly retention: "limits" | "workqueue";
  /** Seconds after which messages are dropped; 0: never for their age. */
  readonly maxAgeSeconds: number;
}

const WEEK_SECONDS = 7 * 24 * 60 * 60;
/** Bytes beyond which a stream drops its oldest messages. */
export const STREAM_BYTES_MAX = 100_000_000;
/** Seconds for which a stream remembers `Nats-Msg-Id`. */
export const DUPLICATE_WINDOW_SECONDS = 120;

/** The stream of all results. */
export const RESULT_STREAM = "mpc";

/** Every stream. */
export const STREAMS: readonly StreamSpec[] = [
  {
    name: "mpc-keygen",
    subjects: ["mpc.keygen_request.*"],
    retention: "limits",
    maxAgeSeconds: WEEK_SECONDS,
  },
  {
    name: "mpc-signing",
    subjects: ["mpc.signing_request.*"],
    retention: "limits",
    maxAgeSeconds: WEEK_SECONDS,
  },
  {
    name: "mpc-reshare",
    subjects: ["mpc.reshare_request.*"],
    retention: "limits",
    maxAgeSeconds: WEEK_SECONDS,
  },
  {
    name: RESULT_STREAM,
    subjects: ["mpc.mpc_keygen_result.>", "mpc.mpc_signing_result.>", "mpc.mpc_reshare_result.>"],
    retention: "workqueue",
    maxAgeSeconds: 0,
  },
];

/** Deliveries of one result before the server gives up on a client. */
export const RESULT_MAX_DELIVER = 3;
/** Seconds that a client has to acknowledge a result. */
export const RESULT_ACK_WAIT_SECONDS = 30;
/** Results that a client may leave unacknowledged at once. */
export const RESULT_MAX_ACK_PENDING = 1000;

const REQUEST_PREFIX: Readonly<Record<Kind, string>> = {
  keygen: "mpc.keygen_request.",
  sign: "mpc.signing_request.",
  reshare: "mpc.reshare_request.",
};
const RESULT_NAME: Readonly<Record<Kind, string>> = {
  keygen: "mpc_keygen_result",
  sign: "mpc_signing_result",
  reshare: "mpc_reshare_result",
};

/** The stream that holds the requests of a kind. */
export function requestStream(kind: Kind): string {
  return { keygen: "mpc-keygen", sign: "mpc-signing", reshare: "mpc-reshare" }[kind];
}

/** Where a request is published. */
export function requestSubject(kind: Kind, requestId: string): string {
  return REQUEST_PREFIX[kind] + escapeToken(requestId);
}

/** What a client's consumer of results filters. The client id must have passed {@link checkClientId}. */
export function resultFilter(kind: Kind, clientId: string | undefined): string {
  const scope = clientId === undefined ? "" : `.${clientId}`;
  return `mpc.${RESULT_NAME[kind]}${scope}.${kind === "sign" ? "complete" : "*"}`;
}

/**
 * The name of a client's durable consumer of results. Ids that differ only in what {@link sanitizeConsumer} replaces
 * share a name: an inheritance of the existing system.
 */
export function resultDurable(kind: Kind, clientId: string | undefined): string {
  return clientId === undefined ? RESULT_NAME[kind] : sanitizeConsumer(`${RESULT_NAME[kind]}.${clientId}`);
}

/** The existing system's rule for consumer names. */
export function sanitizeConsumer(name: string): string {
  const start = /^[A-Za-z_]/.test(name) ? "" : "_";
  return start + name.replace(/[.: -]/g, "_").replace(/>/g, "all").replace(/\*/g, "any");
}

/**
 * Makes one subject token of an id of any content: dots, white space, wildcards, control characters and the percent
 * sign become `%XX`, white space beyond U+00FF `%uXXXX`; the empty id becomes `%`. Everything else stays.
 *
 * The server divides its lines at ASCII white space only, but client libraries do at any.
 */
export function escapeToken(id: string): string {
  if (id === "") {
    return "%";
  }
  return id.replace(
    /[.*>%\u0000-\u0020\u007f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/g,
    (character) => {
      const digits = character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0");
      return digits.length === 2 ? `%${digits}` : `%u${digits.padStart(4, "0")}`;
    },
  );
}

/** The id that {@link escapeToken} made a token of; `undefined` if it did not make it. */
export function unescapeToken(token: string): string | undefined {
  if (token === "%") {
    return "";
  }
  const id = token.replace(/%(?:u([0-9A-F]{4})|([0-9A-F]{2}))/g, (_, wide: string | undefined, narrow: string) =>
    String.fromCharCode(Number.parseInt(wide ?? narrow, 16)),
  );
  return escapeToken(id) === token ? id : undefined;
}

/**
 * The sequence of the request in its stream that a result with this `Nats-Msg-Id` answers; `undefined` for ids of other
 * systems and other streams.
 */
export function answeredSequence(kind: Kind, messageId: string): number | undefined {
  const place = messageId.slice(messageId.lastIndexOf(":") + 1);
  const prefix = `${requestStream(kind)}-`;
  const match = place.startsWith(prefix) ? /^([0-9]+)-/.exec(place.slice(prefix.length)) : null;
  return match === null ? undefined : Number(match[1]);
}

/**
 * Whether a client may use this id.
 *
 * @throws {@link ClientIdError} if it is blank, too long, or contains white space, a dot or a wildcard.
 */
export function checkClientId(id: string): void {
  if (id.trim() === "") {
    throw new ClientIdError("a client id must not be blank");
  }
  const bad = /[ \t\r\n\0.*>]/.exec(id);
  if (bad !== null) {
    throw new ClientIdError(`a client id must not contain ${JSON.stringify(bad[0])}`);
  }
  const bytes = encodeUtf8(id).length;
  if (bytes > CLIENT_ID_BYTES_MAX) {
    throw new ClientIdError(`a client id has at most ${CLIENT_ID_BYTES_MAX} bytes, got ${bytes}`);
  }
}
