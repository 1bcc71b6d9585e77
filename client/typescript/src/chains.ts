/** Keys and signatures in the forms that chains use, and their verification. */

import { secp256k1 } from "@noble/curves/secp256k1.js";
import { keccak_256 } from "@noble/hashes/sha3.js";

import { PublicKey } from "./auth.js";
import { deriveEd25519, deriveSecp256k1, secp256k1Coordinates, secp256k1Point } from "./derive.js";
import { UnverifiedResultError } from "./errors.js";
import { digestOf } from "./request.js";
import type { SignRequest } from "./request.js";
import type { EcdsaSuccess, EddsaSuccess, SigningSuccess } from "./result.js";

/** The public keys of a wallet, as the answer to its creation has them. */
export interface WalletKeys {
  /** secp256k1: X ‖ Y, 64 bytes big-endian (33 bytes compressed also do). */
  ecdsaPubKey: Uint8Array;
  /** Ed25519: the usual 32 bytes. */
  eddsaPubKey: Uint8Array;
}

/** An ECDSA signature as Ethereum's libraries take it. */
export interface EthereumSignature {
  /** `0x` and 64 digits. */
  r: string;
  /** `0x` and 64 digits. */
  s: string;
  /** Parity of R's y, for typed transactions (EIP-1559 and others). */
  yParity: 0 | 1;
  /** 27 or 28, for messages and for transactions from before EIP-155. */
  v: 27 | 28;
  /** r, s and v in one: `0x` and 130 digits. */
  serialized: string;
}

/** An ECDSA signature in Ethereum's form. */
export function ethereumSignature(result: EcdsaSuccess): EthereumSignature {
  if (result.recovery > 1) {
    throw new UnverifiedResultError(`${result.txId}: recovery ${result.recovery} has no form on Ethereum`);
  }
  const yParity = result.recovery === 1 ? 1 : 0;
  const v = yParity === 1 ? 28 : 27;
  const [r, s] = [hex(result.r), hex(result.s)];
  return { r: `0x${r}`, s: `0x${s}`, yParity, v, serialized: `0x${r}${s}${v.toString(16)}` };
}

/** The `v` of a transaction that is protected by EIP-155. */
export function eip155V(signature: EthereumSignature, chainId: bigint | number): bigint {
  return BigInt(chainId) * 2n + 35n + BigInt(signature.yParity);
}

/** The address of a secp256k1 key, with the checksum of EIP-55. */
export function ethereumAddress(ecdsaPubKey: Uint8Array): string {
  const digits = hex(keccak_256(secp256k1Coordinates(ecdsaPubKey)).subarray(12));
  const checksum = hex(keccak_256(Buffer.from(digits, "ascii")));
  const mixed = [...digits].map((digit, at) => (Number.parseInt(checksum[at] ?? "0", 16) > 7 ? digit.toUpperCase() : digit));
  return `0x${mixed.join("")}`;
}

/** An Ed25519 signature as Solana shows it: base58 of 64 bytes. */
export function solanaSignature(result: EddsaSuccess): string {
  return base58(result.signature);
}

/** The address of an Ed25519 key on Solana: base58 of 32 bytes. */
export function solanaAddress(eddsaPubKey: Uint8Array): string {
  return base58(eddsaPubKey);
}

/** An ECDSA signature in DER, as Bitcoin and most libraries take it. */
export function derSignature(result: EcdsaSuccess): Uint8Array {
  return new secp256k1.Signature(bigInteger(result.r), bigInteger(result.s)).toBytes("der");
}

const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** Base58 in Bitcoin's alphabet, without a checksum. */
export function base58(bytes: Uint8Array): string {
  const zeros = bytes.findIndex((byte) => byte !== 0);
  let number = bytes.length === 0 ? 0n : bigInteger(bytes);
  let text = "";
  while (number > 0n) {
    text = BASE58.charAt(Number(number % 58n)) + text;
    number /= 58n;
  }
  return BASE58.charAt(0).repeat(zeros < 0 ? bytes.length : zeros) + text;
}

/**
 * The public key under which a request is signed: the wallet's own, or the child's if the request has a path.
 *
 * @param chainCode the cluster's `chain_code`, 32 bytes; needed only for a path
 */
export function signingKey(
  wallet: WalletKeys,
  request: Pick<SignRequest, "keyType" | "derivationPath">,
  chainCode?: Uint8Array,
): Uint8Array {
  const path = request.derivationPath ?? [];
  const own = request.keyType === "secp256k1" ? wallet.ecdsaPubKey : wallet.eddsaPubKey;
  if (path.length === 0) {
    return own;
  }
  if (chainCode === undefined) {
    throw new UnverifiedResultError("the request has a derivation path: its key follows only from the chain code");
  }
  const child = request.keyType === "secp256k1" ? deriveSecp256k1 : deriveEd25519;
  return child(own, chainCode, path).publicKey;
}

/**
 * Checks a signature: that it is over what the request says, by the key that the request names, and for ECDSA that s is
 * low and the recovery bits lead to the key. Results are not authenticated by the bus, so every client should.
 *
 * @throws {@link UnverifiedResultError} if any of it is wrong.
 */
export function verifySignature(
  result: SigningSuccess,
  request: SignRequest,
  wallet: WalletKeys,
  chainCode?: Uint8Array,
): void {
  const wrong = (problem: string): never => {
    throw new UnverifiedResultError(`${request.txId}: ${problem}`);
  };
  if (result.keyType !== request.keyType) {
    wrong(`asked for a ${request.keyType} signature, got one of ${result.keyType}`);
  }
  if (result.walletId !== request.walletId || result.txId !== request.txId) {
    wrong(`the answer is to ${JSON.stringify(result.txId)} of wallet ${JSON.stringify(result.walletId)}`);
  }
  const key = signingKey(wallet, request, chainCode);
  if (result.keyType === "ed25519") {
    if (!PublicKey.fromEd25519(key).verifies(request.tx ?? new Uint8Array(), result.signature)) {
      wrong("the Ed25519 signature does not verify");
    }
    return;
  }
  const digest = digestOf(request.tx, request.hash);
  const point = secp256k1Point(key);
  const compact = Buffer.concat([result.r, result.s]);
  if (!secp256k1.verify(compact, digest, point.toBytes(true), { prehash: false, lowS: true, format: "compact" })) {
    wrong("the ECDSA signature does not verify");
  }
  const signature = new secp256k1.Signature(bigInteger(result.r), bigInteger(result.s), result.recovery);
  if (!signature.recoverPublicKey(digest).equals(point)) {
    wrong("the recovery bits lead to another key");
  }
}

function bigInteger(bytes: Uint8Array): bigint {
  return BigInt(`0x${hex(bytes)}`);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

