/**
 * The signature over everything: the extra field `full_signature` of a request.
 *
 * The existing clients' signatures leave out the derivation path, say nothing of the kind of request, and hold for ever.
 * This one covers the kind, every field but the other signatures, an id, an expiry and, where the sender wants it, the
 * client id under which the answer is to be published. Invariant: the signed text is never the signed bytes of anything
 * else. It is a JSON object, which no wallet id may begin like, and its one member is that of no request.
 */

import { createHash } from "node:crypto";

import { ObjectWriter, encodeUtf8 } from "./gojson.js";
import type { MpciumRequest } from "./request.js";

/** The field's name in documents. */
export const FULL_SIGNATURE_FIELD = "full_signature";
/** The one member of the signed text. */
const SIGNED_MEMBER = "mpcium_request_v1";
/** Begins the hashed bytes, a zero byte follows. */
const DIGEST_TAG = "mpcium/1 full request";

/** A signature over all fields of a request, with what it covers besides them. */
export interface FullSignature {
  /** Drawn anew for each request that is signed: 1 to 256 bytes. */
  requestId: string;
  /** Nobody works for the request after this: milliseconds since 1970. */
  expiresAt: number;
  /** Under which client id the answer is published, whatever the header says; absent: as the header says. */
  clientId?: string;
  /** The initiator's, over {@link fullBytes}. */
  signature: Uint8Array | null;
}

/** What the full signature of a request signs: `{"mpcium_request_v1":"<SHA-256>"}`; `undefined` without one. */
export function fullBytes(request: MpciumRequest): Uint8Array | undefined {
  const full = request.fullSignature;
  if (full === undefined || full === null) {
    return undefined;
  }
  const covered = new FieldBytes()
    .bytes(payloadBytes(request))
    .text(full.requestId)
    .u64(BigInt(full.expiresAt))
    .optional(full.clientId === undefined ? null : encodeUtf8(full.clientId));
  const digest = createHash("sha256").update(DIGEST_TAG).update(Uint8Array.of(0)).update(covered.finish()).digest("hex");
  return new ObjectWriter().string(SIGNED_MEMBER, digest).finish();
}

/** The field's text. */
export function fullSignatureText(full: FullSignature): string {
  const object = new ObjectWriter().string("request_id", full.requestId).integer("expires_at", full.expiresAt);
  if (full.clientId !== undefined) {
    object.string("client_id", full.clientId);
  }
  return object.bytes("signature", full.signature).text();
}

/** An unambiguous encoding of the kind and of every field except the signatures. */
function payloadBytes(request: MpciumRequest): Uint8Array {
  const out = new FieldBytes();
  switch (request.kind) {
    case "keygen":
      return out.tag(1).text(request.walletId).finish();
    case "sign": {
      const path = request.derivationPath ?? [];
      out.tag(2).text(request.keyType).text(request.walletId).text(request.networkInternalCode ?? "").text(request.txId);
      out.optional(request.tx).u64(BigInt(path.length));
      path.forEach((index) => out.u32(index));
      if (request.hash !== undefined) {
        out.text(request.hash);
      }
      return out.finish();
    }
    case "reshare":
      out.tag(3).text(request.sessionId);
      if (request.nodeIds === null) {
        out.tag(0);
      } else {
        out.tag(1).u64(BigInt(request.nodeIds.length));
        request.nodeIds.forEach((id) => out.text(id));
      }
      return out.u64(BigInt(request.newThreshold)).text(request.keyType).text(request.walletId).finish();
  }
}

/** Length-prefixed fields: no two different lists of fields have the same bytes. */
export class FieldBytes {
  private readonly parts: Uint8Array[] = [];

  /** One byte. */
  tag(tag: number): this {
    this.parts.push(Uint8Array.of(tag));
    return this;
  }

  /** Four bytes, big-endian. */
  u32(number: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(number);
    this.parts.push(bytes);
    return this;
  }

  /** Eight bytes, big-endian; negative numbers in two's complement. */
  u64(number: bigint): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt.asUintN(64, number));
    this.parts.push(bytes);
    return this;
  }

  /** Bytes after their length. */
  bytes(bytes: Uint8Array): this {
    this.u64(BigInt(bytes.length)).parts.push(bytes);
    return this;
  }

  /** UTF-8 after its length. */
  text(text: string): this {
    return this.bytes(encodeUtf8(text));
  }

  /** A mark whether it is there, and the bytes after their length. */
  optional(bytes: Uint8Array | null): this {
    return bytes === null ? this.tag(0) : this.tag(1).bytes(bytes);
  }

  /** All of it. */
  finish(): Uint8Array {
    return Buffer.concat(this.parts);
  }
}
