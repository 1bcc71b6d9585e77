/**
 * The keys of initiators and authorizers: their text forms, verification, and an authorizer's approval.
 *
 * Ed25519 verification is Go's: the scalar must be reduced, the equation is without cofactor. P-256 signatures are
 * strict DER over SHA-256, with a high or low S.
 */

import { createPublicKey, verify } from "node:crypto";
import type { KeyObject } from "node:crypto";

import { ed25519 } from "@noble/curves/ed25519.js";

import { KeyError } from "./errors.js";
import { decodeBase64 } from "./gojson.js";
import { fullBytes } from "./full.js";
import { approvalBytes, canonicalBytes, needsFullSignature } from "./request.js";
import type { MpciumRequest } from "./request.js";
import type { Signer } from "./signer.js";

/** The signature algorithms of initiators and authorizers. */
export type Algorithm = "ed25519" | "p256";

/** DER of a SubjectPublicKeyInfo of Ed25519, up to the key (RFC 8410). */
const ED25519_INFO = Buffer.from("302a300506032b6570032100", "hex");

/** A public key that signs requests. */
export class PublicKey {
  /** The algorithm. */
  readonly algorithm: Algorithm;
  readonly #key: KeyObject;

  private constructor(algorithm: Algorithm, key: KeyObject) {
    this.algorithm = algorithm;
    this.#key = key;
  }

  /**
   * From a cluster's configuration. `ed25519`: 64 hexadecimal digits. `p256`: hexadecimal (with or without `0x`) or
   * standard base64 of a SubjectPublicKeyInfo in DER; authorizers' keys have no base64 form there.
   *
   * @throws {@link KeyError} if the text is no such key.
   */
  static parse(algorithm: Algorithm, text: string): PublicKey {
    if (algorithm === "ed25519") {
      const raw = decodeHex(text, 32);
      if (raw === undefined) {
        throw new KeyError("not a public key: expected 64 hexadecimal digits");
      }
      return PublicKey.fromEd25519(raw);
    }
    const der = decodeHex(text.startsWith("0x") ? text.slice(2) : text) ?? decodeBase64(text);
    if (der === undefined) {
      throw new KeyError("not a public key: expected hexadecimal or base64 of a P-256 SubjectPublicKeyInfo in DER");
    }
    return PublicKey.fromP256Info(der);
  }

  /** From the 32 bytes of an Ed25519 key. */
  static fromEd25519(raw: Uint8Array): PublicKey {
    let weak: boolean;
    try {
      weak = ed25519.Point.fromBytes(raw).isSmallOrder();
    } catch (error) {
      throw new KeyError("not a usable public key: not on the curve", { cause: error });
    }
    if (weak) {
      throw new KeyError("not a usable public key: of small order: anybody could sign for it");
    }
    const der = Buffer.concat([ED25519_INFO, raw]);
    return new PublicKey("ed25519", createPublicKey({ key: der, format: "der", type: "spki" }));
  }

  /** From a SubjectPublicKeyInfo in DER of a P-256 key. */
  static fromP256Info(der: Uint8Array): PublicKey {
    try {
      const key = createPublicKey({ key: Buffer.from(der), format: "der", type: "spki" });
      if (key.asymmetricKeyDetails?.namedCurve === "prime256v1") {
        return new PublicKey("p256", key);
      }
    } catch {
      // Said below.
    }
    throw new KeyError("not a public key: expected a P-256 SubjectPublicKeyInfo in DER");
  }

  /** The key as a cluster's configuration spells it: hexadecimal, for P-256 of the SubjectPublicKeyInfo. */
  text(): string {
    const der = this.#key.export({ format: "der", type: "spki" });
    return (this.algorithm === "ed25519" ? der.subarray(ED25519_INFO.length) : der).toString("hex");
  }

  /** Whether `signature` is this key's over `message`. */
  verifies(message: Uint8Array, signature: Uint8Array): boolean {
    return verify(this.algorithm === "ed25519" ? null : "sha256", message, this.#key, signature);
  }
}

function decodeHex(text: string, length?: number): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[0-9A-Fa-f]+$/.test(text) || (length !== undefined && text.length !== 2 * length)) {
    return undefined;
  }
  return new Uint8Array(Buffer.from(text, "hex"));
}

/**
 * Whether a request carries the initiator's signature over exactly this request; a full one that is there must be good, and
 * it must be there where the request names a hash.
 */
export function verifyInitiator(key: PublicKey, request: MpciumRequest): boolean {
  const { signature, fullSignature } = request;
  if (!signature?.length || !key.verifies(canonicalBytes(request), signature)) {
    return false;
  }
  const full = fullBytes(request);
  if (full === undefined) {
    return !needsFullSignature(request);
  }
  return key.verifies(full, fullSignature?.signature ?? new Uint8Array());
}

/**
 * An authorizer's approval: the same request with one more signature. The request must have been signed by the
 * initiator (see `MpciumClient.signed`). The approval covers everything where the request has a full signature, otherwise
 * the classic bytes and the initiator's signature.
 *
 * @param authorizerId the authorizer's name in the cluster's configuration
 * @throws {@link KeyError} if the initiator has not signed.
 */
export async function approve(request: MpciumRequest, authorizerId: string, signer: Signer): Promise<MpciumRequest> {
  if (!request.signature?.length) {
    throw new KeyError("the initiator has not signed: approvals come after that");
  }
  const signature = await signer.sign(approvalBytes(request));
  const approvals = [...(request.authorizerSignatures ?? []), { authorizerId, signature }];
  return { ...request, authorizerSignatures: approvals };
}
