/**
 * What clients ask for: the request documents, the bytes that initiators sign, and the checks before anything is sent.
 *
 * A cluster verifies signatures over a re-encoding of the decoded document, so decoding keeps everything that the
 * encoding shows, the difference between `null` and empty included.
 */

import { createHash } from "node:crypto";

import { keccak_256 } from "@noble/hashes/sha3.js";

import { ClientIdError, DocumentError, InvalidRequestError } from "./errors.js";
import { FULL_SIGNATURE_FIELD, fullBytes, fullSignatureText } from "./full.js";
import type { FullSignature } from "./full.js";
import { FieldReader, JsonSyntaxError, ObjectWriter, encodeUtf8, parse, quoted, sameName } from "./gojson.js";
import type { JsonValue } from "./gojson.js";
import { checkClientId } from "./subjects.js";

/** Bytes of a request document. */
export const REQUEST_BYTES_MAX = 512 * 1024;
/** Bytes (of UTF-8) of an id or a network code. */
export const ID_BYTES_MAX = 256;
/** Bytes of an Ed25519 message. */
export const TX_BYTES_MAX = 256 * 1024;
/** Levels of a derivation path. */
export const PATH_LEVELS_MAX = 255;
/** Members of a new committee. */
export const COMMITTEE_MAX = 32;
/** Authorizer signatures on one request. */
export const AUTHORIZER_SIGNATURES_MAX = 64;
/** Bytes of one signature: 64 for Ed25519, up to 72 for P-256 in DER. */
export const SIGNATURE_BYTES_MAX = 128;

/** Indices from here on are hardened, which needs a private key that nobody has. */
const HARDENED = 2 ** 31;
const SECP256K1_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

/** The kinds of request, each with a queue of its own. */
export type Kind = "keygen" | "sign" | "reshare";

/** Every kind. */
export const KINDS: readonly Kind[] = ["keygen", "sign", "reshare"];

/** The curves, each with one signature scheme: ECDSA over secp256k1, and Ed25519 as in RFC 8032. */
export type KeyType = "secp256k1" | "ed25519";

/**
 * How the nodes hash a message for secp256k1: SHA-256, SHA-256 of SHA-256 as Bitcoin does, or Keccak-256 as Ethereum does.
 */
export type MessageHash = "sha256" | "sha256d" | "keccak256";

const HASHES: Record<MessageHash, (message: Uint8Array) => Uint8Array> = {
  sha256,
  sha256d: (message) => sha256(sha256(message)),
  keccak256: keccak_256,
};

function sha256(message: Uint8Array): Uint8Array {
  return createHash("sha256").update(message).digest();
}

/** An authorizer's approval of a request. */
export interface AuthorizerSignature {
  /** Which authorizer, as named in the cluster's configuration. */
  authorizerId: string;
  /** Over {@link approvalBytes}. */
  signature: Uint8Array | null;
}

/** What every request may carry. */
export interface RequestSignatures {
  /** The initiator's signature over {@link canonicalBytes}. Without one the client's signer makes it. */
  signature?: Uint8Array | null;
  /** Approvals, where the cluster asks for them: see {@link approve}. */
  authorizerSignatures?: readonly AuthorizerSignature[];
  /** The initiator's signature over everything. The client makes it together with the other. */
  fullSignature?: FullSignature | null;
}

/** Create a wallet: one key on each curve. */
export interface KeygenRequest extends RequestSignatures {
  /** The new wallet's id. */
  walletId: string;
}

/** Sign with a wallet. */
export interface SignRequest extends RequestSignatures {
  /** Which of the wallet's keys. */
  keyType: KeyType;
  /** Which wallet. */
  walletId: string;
  /** Free text, repeated in the result. Default: empty. */
  networkInternalCode?: string;
  /** The request's id. Asking again with the same id and the same content returns the same signature. */
  txId: string;
  /**
   * secp256k1: the digest, as a big-endian integer below the group order; or, with {@link SignRequest.hash}, the message.
   * Ed25519: the message. `null` and empty mean the same to the signer, but are different signed bytes.
   */
  tx: Uint8Array | null;
  /**
   * secp256k1: how the nodes hash the message; absent: `tx` is the digest. Needs a full signature.
   */
  hash?: MessageHash;
  /** Child key indices, not hardened; empty or absent: the wallet's own key. */
  derivationPath?: readonly number[];
}

/** Move one of a wallet's keys to another committee. */
export interface ReshareRequest extends RequestSignatures {
  /** The request's id. */
  sessionId: string;
  /** The new members' UUIDs (not their names). `null` and empty are different signed bytes; neither is accepted. */
  nodeIds: readonly string[] | null;
  /** The new threshold; whether it counts signers or is the polynomial's degree is the cluster's configuration. */
  newThreshold: number;
  /** Which of the wallet's keys. */
  keyType: KeyType;
  /** Which wallet. */
  walletId: string;
}

/** A request of any kind. */
export type MpciumRequest =
  | ({ kind: "keygen" } & KeygenRequest)
  | ({ kind: "sign" } & SignRequest)
  | ({ kind: "reshare" } & ReshareRequest);

/** A request's own id within its kind: wallet, transaction or session id. */
export function requestId(request: MpciumRequest): string {
  switch (request.kind) {
    case "keygen":
      return request.walletId;
    case "sign":
      return request.txId;
    case "reshare":
      return request.sessionId;
  }
}

/** The id that stands in the bytes that authorizers sign. */
export function initiatorId(request: MpciumRequest): string {
  return request.kind === "sign" ? request.txId : request.walletId;
}

/**
 * The bytes that the initiator signs: the bare wallet id for key generation, otherwise the Go encoding of the fields of
 * the contract. They cover neither derivation path nor approvals; {@link fullBytes} do.
 */
export function canonicalBytes(request: MpciumRequest): Uint8Array {
  return request.kind === "keygen" ? encodeUtf8(request.walletId) : signedFields(request).finish();
}

function signedFields(request: Exclude<MpciumRequest, { kind: "keygen" }>): ObjectWriter {
  const object = new ObjectWriter();
  if (request.kind === "sign") {
    object
      .string("key_type", request.keyType)
      .string("wallet_id", request.walletId)
      .string("network_internal_code", request.networkInternalCode ?? "")
      .string("tx_id", request.txId)
      .bytes("tx", request.tx);
    // Part of what is signed: without it a message of at most 32 bytes could pass for a digest.
    return request.hash === undefined ? object : object.string("hash", request.hash);
  }
  return object
    .string("session_id", request.sessionId)
    .array("node_ids", request.nodeIds, quoted)
    .integer("new_threshold", request.newThreshold)
    .string("key_type", request.keyType)
    .string("wallet_id", request.walletId);
}

/** Whether a request asks for something that only a full signature can ask for: a message that the nodes hash. */
export function needsFullSignature(request: MpciumRequest): boolean {
  return request.kind === "sign" && request.hash !== undefined;
}

/**
 * What an authorizer signs: the bytes of the full signature where the request has one, otherwise
 * {@link authorizerBytes}.
 */
export function approvalBytes(request: MpciumRequest): Uint8Array {
  return fullBytes(request) ?? authorizerBytes(request);
}

/** The bytes that authorizers of the existing system sign: they bind the initiator's bytes and signature. */
export function authorizerBytes(request: MpciumRequest): Uint8Array {
  return new ObjectWriter()
    .string("initiator_id", initiatorId(request))
    .bytes("initiator_raw", canonicalBytes(request))
    .bytes("initiator_sig", request.signature)
    .finish();
}

/** The document as clients send it. */
export function encodeRequest(request: MpciumRequest): Uint8Array {
  let object: ObjectWriter;
  switch (request.kind) {
    case "keygen":
      object = new ObjectWriter().string("wallet_id", request.walletId).bytes("signature", request.signature);
      break;
    case "sign": {
      const path = request.derivationPath?.length ? request.derivationPath : null;
      object = signedFields(request).bytes("signature", request.signature).array("derivation_path", path, String);
      break;
    }
    case "reshare":
      object = signedFields(request);
      if (request.signature?.length) {
        object.bytes("signature", request.signature);
      }
      break;
  }
  const approvals = request.authorizerSignatures;
  if (approvals?.length) {
    object.array("authorizer_signatures", approvals, (item) =>
      new ObjectWriter().string("authorizer_id", item.authorizerId).bytes("signature", item.signature).text(),
    );
  }
  if (request.fullSignature !== undefined && request.fullSignature !== null) {
    object.raw(FULL_SIGNATURE_FIELD, fullSignatureText(request.fullSignature));
  }
  return object.finish();
}

/**
 * Reads a document by the rules of Go's `json.Unmarshal` (names in any case, the last repetition wins, unknown members
 * are ignored, `null` is the zero value) and checks it: what an authorizer does with a request that it is to approve.
 *
 * @throws {@link DocumentError} if the bytes are too long, not one JSON object, or a field has the wrong type.
 * @throws {@link InvalidRequestError} as {@link validateRequest} does.
 */
export function decodeRequest(kind: Kind, document: Uint8Array): MpciumRequest {
  if (document.length > REQUEST_BYTES_MAX) {
    throw new DocumentError(`the document has ${document.length} bytes, at most ${REQUEST_BYTES_MAX} are read`);
  }
  const fields = new Fields(new FieldReader());
  for (const [name, value] of membersOf(document)) {
    fields.read(kind, name, value);
  }
  if (fields.reader.firstError !== undefined) {
    throw new DocumentError(fields.reader.firstError);
  }
  const request = fields.request(kind);
  validateRequest(request);
  return request;
}

/** The members of the one object that a document is; none for `null`. */
export function membersOf(document: Uint8Array): readonly (readonly [string, JsonValue])[] {
  let value: JsonValue;
  try {
    value = parse(document);
  } catch (error) {
    if (error instanceof JsonSyntaxError) {
      throw new DocumentError(error.message);
    }
    throw error;
  }
  switch (value.kind) {
    case "object":
      return value.members;
    case "null":
      return [];
    default:
      throw new DocumentError(`expected an object, got ${value.kind}`);
  }
}

/** The fields of all kinds while a document is read. */
class Fields {
  readonly reader: FieldReader;
  private walletId = "";
  private keyType = "";
  private networkInternalCode = "";
  private txId = "";
  private tx: Uint8Array | null = null;
  private hash = "";
  private sessionId = "";
  private nodeIds: string[] | null = null;
  private newThreshold = 0;
  private signature: Uint8Array | null = null;
  private derivationPath: number[] = [];
  private authorizerSignatures: AuthorizerSignature[] = [];
  private fullSignature: FullSignature | null = null;

  constructor(reader: FieldReader) {
    this.reader = reader;
  }

  read(kind: Kind, name: string, value: JsonValue): void {
    const reader = this.reader;
    if (sameName(FULL_SIGNATURE_FIELD, name)) {
      this.readFull(value);
      return;
    }
    const field = FIELDS[kind].find((known) => sameName(known, name));
    switch (field) {
      case undefined:
        break;
      case "wallet_id":
        this.walletId = reader.string(field, value, this.walletId);
        break;
      case "key_type":
        this.keyType = reader.string(field, value, this.keyType);
        break;
      case "network_internal_code":
        this.networkInternalCode = reader.string(field, value, this.networkInternalCode);
        break;
      case "tx_id":
        this.txId = reader.string(field, value, this.txId);
        break;
      case "tx":
        this.tx = reader.bytes(field, value, this.tx);
        break;
      case "hash":
        this.hash = reader.string(field, value, this.hash);
        break;
      case "signature":
        this.signature = reader.bytes(field, value, this.signature);
        break;
      case "derivation_path":
        this.derivationPath =
          reader.slice(field, value, this.derivationPath, (item) => reader.integer(field, item, 0, 0, 2 ** 32 - 1)) ??
          [];
        break;
      case "session_id":
        this.sessionId = reader.string(field, value, this.sessionId);
        break;
      case "node_ids":
        this.nodeIds = reader.slice(field, value, this.nodeIds, (item) => reader.string(field, item, ""));
        break;
      case "new_threshold":
        this.newThreshold = reader.integer(
          field,
          value,
          this.newThreshold,
          Number.MIN_SAFE_INTEGER,
          Number.MAX_SAFE_INTEGER,
        );
        break;
      case "authorizer_signatures":
        this.authorizerSignatures =
          reader.slice(field, value, this.authorizerSignatures, (item) => this.approval(item)) ?? [];
        break;
    }
  }

  private readFull(value: JsonValue): void {
    const reader = this.reader;
    if (value.kind !== "object") {
      if (value.kind !== "null") {
        reader.wrongType(FULL_SIGNATURE_FIELD, "an object", value);
      }
      return;
    }
    const full = (this.fullSignature ??= { requestId: "", expiresAt: 0, signature: null });
    for (const [name, member] of value.members) {
      if (sameName(name, "request_id")) {
        full.requestId = reader.string("full_signature.request_id", member, full.requestId);
      } else if (sameName(name, "expires_at")) {
        const field = "full_signature.expires_at";
        full.expiresAt = reader.integer(field, member, full.expiresAt, 0, Number.MAX_SAFE_INTEGER);
      } else if (sameName(name, "client_id")) {
        if (member.kind === "null") {
          delete full.clientId;
        } else {
          full.clientId = reader.string("full_signature.client_id", member, full.clientId ?? "");
        }
      } else if (sameName(name, "signature")) {
        full.signature = reader.bytes("full_signature.signature", member, full.signature);
      }
    }
  }

  private approval(item: JsonValue): AuthorizerSignature {
    const approval: AuthorizerSignature = { authorizerId: "", signature: null };
    if (item.kind === "object") {
      for (const [name, value] of item.members) {
        if (sameName(name, "authorizer_id")) {
          const field = "authorizer_signatures.authorizer_id";
          approval.authorizerId = this.reader.string(field, value, approval.authorizerId);
        } else if (sameName(name, "signature")) {
          approval.signature = this.reader.bytes("authorizer_signatures.signature", value, approval.signature);
        }
      }
    } else if (item.kind !== "null") {
      this.reader.wrongType("authorizer_signatures", "an object", item);
    }
    return approval;
  }

  request(kind: Kind): MpciumRequest {
    const { walletId, signature, authorizerSignatures, fullSignature } = this;
    // Whether it is one of the two is checked by whoever calls this.
    const keyType = this.keyType as KeyType;
    switch (kind) {
      case "keygen":
        return { kind, walletId, signature, authorizerSignatures, fullSignature };
      case "sign": {
        const { networkInternalCode, txId, tx, derivationPath } = this;
        return {
          kind,
          keyType,
          walletId,
          networkInternalCode,
          txId,
          tx,
          // Whether it is a known one is checked by whoever calls this.
          ...(this.hash === "" ? {} : { hash: this.hash as MessageHash }),
          derivationPath,
          signature,
          authorizerSignatures,
          fullSignature,
        };
      }
      case "reshare": {
        const { sessionId, nodeIds, newThreshold } = this;
        return {
          kind,
          sessionId,
          nodeIds,
          newThreshold,
          keyType,
          walletId,
          signature,
          authorizerSignatures,
          fullSignature,
        };
      }
    }
  }
}

const FIELDS = {
  keygen: ["wallet_id", "signature", "authorizer_signatures"],
  sign: [
    "key_type",
    "wallet_id",
    "network_internal_code",
    "tx_id",
    "tx",
    "hash",
    "signature",
    "derivation_path",
    "authorizer_signatures",
  ],
  reshare: [
    "session_id",
    "node_ids",
    "new_threshold",
    "key_type",
    "wallet_id",
    "signature",
    "authorizer_signatures",
  ],
} as const;

/**
 * Whether a cluster may act on a request, as far as the document alone shows.
 *
 * @throws {@link InvalidRequestError} naming the first field with a value that is not allowed.
 */
export function validateRequest(request: MpciumRequest): void {
  checkId("wallet_id", request.walletId);
  switch (request.kind) {
    case "keygen":
      if (request.walletId.startsWith("{")) {
        // The bare id is what is signed: such an id could be the signed bytes of another request.
        throw new InvalidRequestError("wallet_id", 'must not begin with "{": its signature could pass for another\'s');
      }
      break;
    case "sign":
      validateSign(request);
      break;
    case "reshare":
      validateReshare(request);
      break;
  }
  checkSignature("signature", request.signature);
  const approvals = request.authorizerSignatures ?? [];
  if (approvals.length > AUTHORIZER_SIGNATURES_MAX) {
    const problem = `${approvals.length} signatures, at most ${AUTHORIZER_SIGNATURES_MAX} are read`;
    throw new InvalidRequestError("authorizer_signatures", problem);
  }
  for (const item of approvals) {
    checkText("authorizer_signatures", item.authorizerId);
    checkSignature("authorizer_signatures", item.signature);
  }
  if (request.fullSignature !== undefined && request.fullSignature !== null) {
    validateFull(request.fullSignature);
  }
}

function validateFull(full: FullSignature): void {
  checkId("full_signature.request_id", full.requestId);
  if (!Number.isSafeInteger(full.expiresAt) || full.expiresAt < 0) {
    throw new InvalidRequestError("full_signature.expires_at", `${full.expiresAt} is no time in milliseconds`);
  }
  if (full.clientId !== undefined) {
    try {
      checkClientId(full.clientId);
    } catch (error) {
      throw error instanceof ClientIdError
        ? new InvalidRequestError("full_signature.client_id", error.message)
        : error;
    }
  }
  checkSignature("full_signature.signature", full.signature);
}

function validateSign(request: SignRequest): void {
  checkId("tx_id", request.txId);
  checkText("network_internal_code", request.networkInternalCode ?? "");
  checkKeyType(request.keyType);
  checkBytes("tx", request.tx);
  if (request.hash !== undefined) {
    checkHash(request);
  }
  if (request.keyType === "secp256k1" && request.hash === undefined) {
    digestOf(request.tx);
  } else if ((request.tx?.length ?? 0) > TX_BYTES_MAX) {
    const problem = `a message of ${request.tx?.length} bytes, at most ${TX_BYTES_MAX} are signed`;
    throw new InvalidRequestError("tx", problem);
  }
  checkPath(request.derivationPath ?? []);
}

function checkHash(request: SignRequest): void {
  if (!Object.hasOwn(HASHES, String(request.hash))) {
    const shown = JSON.stringify(String(request.hash).slice(0, 32));
    const problem = `unknown hash function ${shown}, expected one of ${Object.keys(HASHES).join(", ")}`;
    throw new InvalidRequestError("hash", problem);
  }
  if (request.keyType !== "secp256k1") {
    throw new InvalidRequestError("hash", "only secp256k1 signs a digest: Ed25519 signs the message itself");
  }
}

function checkPath(path: readonly number[]): void {
  if (path.length > PATH_LEVELS_MAX) {
    const problem = `${path.length} levels, at most ${PATH_LEVELS_MAX} are allowed`;
    throw new InvalidRequestError("derivation_path", problem);
  }
  for (const index of path) {
    if (!Number.isInteger(index) || index < 0 || index >= HARDENED) {
      const problem = `the index ${index} must be an integer, non-hardened, below ${HARDENED}`;
      throw new InvalidRequestError("derivation_path", problem);
    }
  }
}

/**
 * The digest that a secp256k1 request signs: the hash of `tx` if the request names one. Otherwise `tx` as a big-endian
 * integer, 32 bytes: nothing is hashed; missing leading zeros are added, surplus ones removed.
 *
 * @throws {@link InvalidRequestError} if the integer is not below the group order.
 */
export function digestOf(tx: Uint8Array | null, hash?: MessageHash): Uint8Array {
  const bytes = tx ?? new Uint8Array();
  if (hash !== undefined) {
    return HASHES[hash](bytes);
  }
  const start = bytes.findIndex((byte) => byte !== 0);
  const significant = start < 0 ? new Uint8Array() : bytes.subarray(start);
  if (significant.length > 32) {
    const problem = `a secp256k1 digest has at most 32 bytes, got ${significant.length}; nothing is hashed here`;
    throw new InvalidRequestError("tx", problem);
  }
  const digest = new Uint8Array(32);
  digest.set(significant, 32 - significant.length);
  if (BigInt(`0x${Buffer.from(digest).toString("hex")}`) >= SECP256K1_ORDER) {
    throw new InvalidRequestError("tx", "a secp256k1 digest must be below the order of the group");
  }
  return digest;
}

function validateReshare(request: ReshareRequest): void {
  checkId("session_id", request.sessionId);
  checkKeyType(request.keyType);
  const ids = request.nodeIds ?? [];
  if (ids.length === 0 || ids.length > COMMITTEE_MAX) {
    const problem = `a committee has 1 to ${COMMITTEE_MAX} members, got ${ids.length}`;
    throw new InvalidRequestError("node_ids", problem);
  }
  const seen = new Set<string>();
  for (const id of ids) {
    checkId("node_ids", id);
    if (seen.has(id)) {
      throw new InvalidRequestError("node_ids", `${id} twice`);
    }
    seen.add(id);
  }
  const { newThreshold } = request;
  if (!Number.isInteger(newThreshold) || newThreshold < 0 || newThreshold > ids.length) {
    throw new InvalidRequestError("new_threshold", `${newThreshold} is not possible with ${ids.length} members`);
  }
}

function checkText(field: string, text: string): void {
  if (typeof text !== "string") {
    throw new InvalidRequestError(field, `expected text, got ${typeof text}`);
  }
  if (/[\ud800-\udfff]/u.test(text)) {
    throw new InvalidRequestError(field, "must be well-formed text: it has half a surrogate pair");
  }
  const bytes = encodeUtf8(text).length;
  if (bytes > ID_BYTES_MAX) {
    throw new InvalidRequestError(field, `${bytes} bytes, at most ${ID_BYTES_MAX} are allowed`);
  }
}

function checkId(field: string, id: string): void {
  checkText(field, id);
  if (id === "") {
    throw new InvalidRequestError(field, "must not be empty");
  }
}

function checkKeyType(keyType: string): void {
  if (keyType !== "secp256k1" && keyType !== "ed25519") {
    const shown = JSON.stringify(String(keyType).slice(0, 32));
    throw new InvalidRequestError(
      "key_type",
      `unsupported key type: ${shown}, expected "secp256k1" or "ed25519"`,
    );
  }
}

function checkBytes(field: string, bytes: Uint8Array | null | undefined): void {
  if (bytes !== null && bytes !== undefined && !(bytes instanceof Uint8Array)) {
    throw new InvalidRequestError(field, `expected a Uint8Array or null, got ${typeof bytes}`);
  }
}

function checkSignature(field: string, signature: Uint8Array | null | undefined): void {
  checkBytes(field, signature);
  if ((signature?.length ?? 0) > SIGNATURE_BYTES_MAX) {
    const problem = `a signature of ${signature?.length} bytes, at most ${SIGNATURE_BYTES_MAX} are read`;
    throw new InvalidRequestError(field, problem);
  }
}
