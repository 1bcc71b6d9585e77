/**
 * Asking for a wallet: a request with a reply over core NATS, signed by the initiator.
 *
 * Nothing is stored and nothing changes, so a lost query costs asking again. Invariant: a query's signed text is the
 * signed bytes of nothing else; like a full signature's it is a JSON object with a member of its own.
 */

import { createHash } from "node:crypto";

import type { Attesters } from "./attest.js";
import { FieldBytes } from "./full.js";
import { ObjectWriter, bytesText, quoted } from "./gojson.js";
import { ResultFields, ofLength } from "./result.js";
import type { Attestation, Failure } from "./result.js";

/** Where queries are sent. */
export const WALLET_QUERY_SUBJECT = "mpc.wallet_query";
/** The one member of the signed text. */
const SIGNED_MEMBER = "mpcium_wallet_query_v1";
/** Begins the hashed bytes, a zero byte follows. */
const DIGEST_TAG = "mpcium/1 wallet query";

/** What is asked. */
export interface WalletQuery {
  /** Which wallet. */
  walletId: string;
  /** Drawn anew for each query and repeated in the reply. */
  requestId: string;
  /** Not answered after this: milliseconds since 1970. */
  expiresAt: number;
}

/** A wallet as the cluster knows it. */
export interface WalletInfo {
  /** It was found. */
  success: true;
  /** The wallet. */
  walletId: string;
  /** secp256k1: X ‖ Y, 64 bytes big-endian. */
  ecdsaPubKey: Uint8Array;
  /** Ed25519: the usual 32 bytes. */
  eddsaPubKey: Uint8Array;
  /** How many members sign together. */
  threshold: number;
  /** How often the wallet has moved to another committee. */
  epoch: number;
  /** The UUIDs of the members. */
  committee: string[];
}

/** What the initiator signs. */
export function querySignedBytes(query: WalletQuery): Uint8Array {
  const covered = new FieldBytes().text(query.walletId).text(query.requestId).u64(BigInt(query.expiresAt)).finish();
  const digest = createHash("sha256").update(DIGEST_TAG).update(Uint8Array.of(0)).update(covered).digest("hex");
  return new ObjectWriter().string(SIGNED_MEMBER, digest).finish();
}

/** The document as it is sent. */
export function encodeQuery(query: WalletQuery, signature: Uint8Array): Uint8Array {
  return new ObjectWriter()
    .string("wallet_id", query.walletId)
    .string("request_id", query.requestId)
    .integer("expires_at", query.expiresAt)
    .bytes("signature", signature)
    .finish();
}

/**
 * Reads the reply to a query: `undefined` if it is one to another query.
 *
 * With `attesters` it is checked who says so: the reply by one node, the keys by as many members as a success needs.
 *
 * @throws {@link DocumentError} if it is no reply, {@link NotAttestedError} if too few nodes have signed.
 */
export function readReply(
  query: WalletQuery,
  document: Uint8Array,
  attesters: Attesters | undefined,
): WalletInfo | Failure | undefined {
  const fields = new ResultFields(document);
  const [walletId, requestId] = [fields.string("wallet_id"), fields.string("request_id")];
  const [ecdsa, eddsa] = [fields.bytes("ecdsa_pub_key"), fields.bytes("eddsa_pub_key")];
  const [threshold, epoch] = [fields.integer("threshold"), fields.integer("epoch")];
  const committee = fields.strings("committee");
  const outcome = ["result_type", "error_reason", "error_code"].map((name) => [name, fields.string(name)] as const);
  const byMembers = fields.attestations("wallet_attestations");
  const byNode = fields.attestations("attestations");
  const failure = fields.failure();
  if (walletId !== query.walletId || requestId !== query.requestId) {
    return undefined;
  }
  const signed = new ObjectWriter()
    .string("wallet_id", walletId)
    .string("request_id", requestId)
    .bytes("ecdsa_pub_key", ecdsa)
    .bytes("eddsa_pub_key", eddsa)
    .integer("threshold", threshold)
    .integer("epoch", epoch)
    .array("committee", committee, quoted);
  outcome.forEach(([name, value]) => signed.string(name, value));
  attesters?.checkSigned(signed.array("wallet_attestations", byMembers, attestationText).finish(), byNode, 1);
  if (failure !== undefined) {
    return failure;
  }
  const keys = new ObjectWriter()
    .string("wallet_id", walletId)
    .bytes("ecdsa_pub_key", ecdsa)
    .bytes("eddsa_pub_key", eddsa)
    .string("result_type", "success")
    .string("error_reason", "")
    .string("error_code", "");
  attesters?.checkSigned(keys.finish(), byMembers, attesters.forSuccess);
  return {
    success: true,
    walletId,
    ecdsaPubKey: ofLength("ecdsa_pub_key", ecdsa, 64),
    eddsaPubKey: ofLength("eddsa_pub_key", eddsa, 32),
    threshold,
    epoch,
    committee,
  };
}

function attestationText({ nodeId, signature }: Attestation): string {
  return `{"node_id":${quoted(nodeId)},"signature":${bytesText(signature)}}`;
}
