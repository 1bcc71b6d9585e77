/**
 * What clusters answer: the result documents.
 *
 * A document becomes a checked value here and nowhere else: a success always has its keys or its signature, in the
 * lengths of the contract.
 */

import { isErrorCode } from "./codes.js";
import type { ErrorCode } from "./codes.js";
import { DocumentError, RefusedError } from "./errors.js";
import { FieldReader, ObjectWriter } from "./gojson.js";
import type { JsonValue } from "./gojson.js";
import { membersOf } from "./request.js";
import type { Kind } from "./request.js";

/** Why a request failed. */
export interface Failure {
  /** It did not succeed. */
  success: false;
  /** The code, if it is a known one. */
  code: ErrorCode | undefined;
  /** The code as it was written. */
  codeText: string;
  /** For people. */
  reason: string;
}

/** A wallet was created. */
export interface KeygenSuccess {
  /** It succeeded. */
  success: true;
  /** The wallet. */
  walletId: string;
  /** secp256k1: X ‖ Y, 64 bytes big-endian. */
  ecdsaPubKey: Uint8Array;
  /** Ed25519: the usual 32 bytes. */
  eddsaPubKey: Uint8Array;
}

/** The answer to a key generation request. */
export type KeygenResult =
  | KeygenSuccess
  | (Failure & {
      /** The wallet. */
      walletId: string;
    });

/** What the answers to signing requests have in common. */
export interface SigningSubject {
  /** The request's free text. */
  networkInternalCode: string;
  /** The wallet. */
  walletId: string;
  /** The request's id. */
  txId: string;
}

/** An ECDSA signature on secp256k1. */
export interface EcdsaSuccess extends SigningSubject {
  /** It succeeded. */
  success: true;
  /** The curve. */
  keyType: "secp256k1";
  /** r, 32 bytes big-endian. */
  r: Uint8Array;
  /** s, 32 bytes big-endian, low. */
  s: Uint8Array;
  /** Bit 0: whether R's y is odd. Bit 1: whether R's x is not below the group order (practically never). */
  recovery: number;
}

/** An Ed25519 signature. */
export interface EddsaSuccess extends SigningSubject {
  /** It succeeded. */
  success: true;
  /** The curve. */
  keyType: "ed25519";
  /** R ‖ S, 64 bytes. */
  signature: Uint8Array;
}

/** A signature was made. */
export type SigningSuccess = EcdsaSuccess | EddsaSuccess;

/** The answer to a signing request. */
export type SigningResult =
  | SigningSuccess
  | (Failure & SigningSubject & {
      /** Whether the request found no answer by its deadline. */
      isTimeout: boolean;
    });

/** A key has moved to its new committee. */
export interface ReshareSuccess {
  /** It succeeded. */
  success: true;
  /** The wallet. */
  walletId: string;
  /** The threshold as it was asked for. */
  newThreshold: number;
  /** Which of the wallet's keys. */
  keyType: string;
  /** The key, which has not changed; encoded as in {@link KeygenSuccess}. */
  pubKey: Uint8Array;
}

/** The answer to a resharing request. */
export type ReshareResult =
  | ReshareSuccess
  | (Failure & {
      /** The wallet. */
      walletId: string;
      /** The threshold as it was asked for. */
      newThreshold: number;
      /** Which of the wallet's keys. */
      keyType: string;
    });

/** The result type of each kind of request. */
export interface ResultOf {
  /** Key generation. */
  keygen: KeygenResult;
  /** Signing. */
  sign: SigningResult;
  /** Resharing. */
  reshare: ReshareResult;
}

/** Turns a failure into the error that the waiting calls throw. */
export function refused(failure: Failure): RefusedError {
  return new RefusedError(failure.code, failure.codeText, failure.reason);
}

/**
 * Reads the answer to a key generation request; members that are not known are ignored.
 *
 * @throws {@link DocumentError} if it is no such document.
 */
export function decodeKeygenResult(document: Uint8Array): KeygenResult {
  const fields = new ResultFields(document);
  const walletId = fields.string("wallet_id");
  const [ecdsa, eddsa] = [fields.bytes("ecdsa_pub_key"), fields.bytes("eddsa_pub_key")];
  const failure = fields.failure();
  if (failure !== undefined) {
    return { ...failure, walletId };
  }
  return {
    success: true,
    walletId,
    ecdsaPubKey: ofLength("ecdsa_pub_key", ecdsa, 64),
    eddsaPubKey: ofLength("eddsa_pub_key", eddsa, 32),
  };
}

/**
 * Reads the answer to a signing request; members that are not known are ignored.
 *
 * @throws {@link DocumentError} if it is no such document.
 */
export function decodeSigningResult(document: Uint8Array): SigningResult {
  const fields = new ResultFields(document);
  const subject: SigningSubject = {
    networkInternalCode: fields.string("network_internal_code"),
    walletId: fields.string("wallet_id"),
    txId: fields.string("tx_id"),
  };
  const isTimeout = fields.boolean("is_timeout");
  const [r, s] = [fields.bytes("r"), fields.bytes("s")];
  const [recovery, signature] = [fields.bytes("signature_recovery"), fields.bytes("signature")];
  const failure = fields.failure();
  if (failure !== undefined) {
    return { ...failure, ...subject, isTimeout };
  }
  if (signature !== null) {
    return { success: true, ...subject, keyType: "ed25519", signature: ofLength("signature", signature, 64) };
  }
  const [bits] = ofLength("signature_recovery", recovery, 1);
  if (bits === undefined || bits > 3) {
    throw new DocumentError(`not a result document: signature_recovery: expected a value below 4, got ${bits}`);
  }
  return {
    success: true,
    ...subject,
    keyType: "secp256k1",
    r: ofLength("r", r, 32),
    s: ofLength("s", s, 32),
    recovery: bits,
  };
}

/**
 * Reads the answer to a resharing request; members that are not known are ignored.
 *
 * @throws {@link DocumentError} if it is no such document.
 */
export function decodeReshareResult(document: Uint8Array): ReshareResult {
  const fields = new ResultFields(document);
  const about = {
    walletId: fields.string("wallet_id"),
    newThreshold: fields.integer("new_threshold"),
    keyType: fields.string("key_type"),
  };
  const pubKey = fields.bytes("pub_key");
  const failure = fields.failure();
  if (failure !== undefined) {
    return { ...failure, ...about };
  }
  return { success: true, ...about, pubKey: ofLength("pub_key", pubKey, about.keyType === "ed25519" ? 32 : 64) };
}

/** Reads a result of a kind. */
export function decodeResult<K extends Kind>(kind: K, document: Uint8Array): ResultOf[K] {
  const decoders: { [Each in Kind]: (document: Uint8Array) => ResultOf[Each] } = {
    keygen: decodeKeygenResult,
    sign: decodeSigningResult,
    reshare: decodeReshareResult,
  };
  return decoders[kind](document);
}

/** A node's signature over a result. */
export interface Attestation {
  /** The node's UUID. */
  nodeId: string;
  /** With its identity key. */
  signature: Uint8Array;
}

/** A result document, divided into what is signed and the signatures. */
export interface AttestedParts {
  /** Whether the request succeeded. */
  success: boolean;
  /** What is signed, after the domain tag. */
  document: Uint8Array;
  /** The signatures. */
  attestations: Attestation[];
}

/**
 * What nodes sign of a result document (all its known members but the attestations, encoded anew), and their signatures.
 *
 * @throws {@link DocumentError} if it is no document of this kind.
 */
export function attestedParts(kind: Kind, document: Uint8Array): AttestedParts {
  const fields = new ResultFields(document);
  const object = new ObjectWriter();
  const strings = (...names: string[]): void => names.forEach((name) => object.string(name, fields.string(name)));
  const bytes = (...names: string[]): void => names.forEach((name) => object.bytes(name, fields.bytes(name)));
  switch (kind) {
    case "keygen":
      strings("wallet_id");
      bytes("ecdsa_pub_key", "eddsa_pub_key");
      strings("result_type", "error_reason", "error_code");
      break;
    case "sign":
      strings("result_type", "error_code", "error_reason");
      object.boolean("is_timeout", fields.boolean("is_timeout"));
      strings("network_internal_code", "wallet_id", "tx_id");
      bytes("r", "s", "signature_recovery", "signature");
      break;
    case "reshare":
      strings("wallet_id");
      object.integer("new_threshold", fields.integer("new_threshold"));
      strings("key_type");
      bytes("pub_key");
      strings("result_type", "error_reason", "error_code");
      break;
  }
  const attestations = fields.attestations();
  return { success: fields.failure() === undefined, document: object.finish(), attestations };
}

/** A document's members by name; the last repetition wins. */
export class ResultFields {
  private readonly members: ReadonlyMap<string, JsonValue>;
  private readonly reader = new FieldReader();

  constructor(document: Uint8Array) {
    try {
      this.members = new Map(membersOf(document));
    } catch (error) {
      throw error instanceof DocumentError ? new DocumentError(`not a result document: ${error.message}`) : error;
    }
  }

  private value(name: string): JsonValue {
    return this.members.get(name) ?? { kind: "null" };
  }

  /** A text. */
  string(name: string): string {
    return this.reader.string(name, this.value(name), "");
  }

  /** A truth value. */
  boolean(name: string): boolean {
    return this.reader.boolean(name, this.value(name), false);
  }

  /** A whole number. */
  integer(name: string): number {
    return this.reader.integer(name, this.value(name), 0, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  }

  /** Bytes in base64, or `null`. */
  bytes(name: string): Uint8Array | null {
    return this.reader.bytes(name, this.value(name), null);
  }

  /** A list of texts. */
  strings(name: string): string[] {
    return this.reader.slice(name, this.value(name), null, (item) => this.reader.string(name, item, "")) ?? [];
  }

  /** Nodes' signatures. */
  attestations(field = "attestations"): Attestation[] {
    const items = this.reader.slice<Attestation>(field, this.value(field), null, (item) => {
      const attestation: Attestation = { nodeId: "", signature: new Uint8Array() };
      if (item.kind !== "object") {
        this.reader.wrongType(field, "an object", item);
        return attestation;
      }
      for (const [name, value] of item.members) {
        if (name === "node_id") {
          attestation.nodeId = this.reader.string(`${field}.node_id`, value, attestation.nodeId);
        } else if (name === "signature") {
          const signature = this.reader.bytes(`${field}.signature`, value, null);
          attestation.signature = signature ?? new Uint8Array();
        }
      }
      return attestation;
    });
    return items ?? [];
  }

  /** What failed; `undefined` on success. To be asked last: it reports what the other members lacked. */
  failure(): Failure | undefined {
    const [codeText, reason, type] = [
      this.string("error_code"),
      this.string("error_reason"),
      this.string("result_type"),
    ];
    if (this.reader.firstError !== undefined) {
      throw new DocumentError(`not a result document: ${this.reader.firstError}`);
    }
    switch (type) {
      case "success":
        return undefined;
      case "error":
        return { success: false, code: isErrorCode(codeText) ? codeText : undefined, codeText, reason };
      default: {
        const shown = JSON.stringify(type.slice(0, 32));
        throw new DocumentError(`not a result document: result_type: expected "success" or "error", got ${shown}`);
      }
    }
  }
}

/** A key or signature of exactly so many bytes. */
export function ofLength(field: string, bytes: Uint8Array | null, length: number): Uint8Array {
  if (bytes?.length !== length) {
    const got = bytes === null ? "null" : `${bytes.length}`;
    throw new DocumentError(`not a result document: ${field}: expected ${length} bytes, got ${got}`);
  }
  return bytes;
}
