/**
 * Child keys from a wallet's public key, as clusters derive them and as anybody can without a cluster.
 *
 * One step is the same on both curves: `HMAC-SHA512(chain code, P ‖ index)`, whose left half times the generator is
 * added to the parent and whose right half is the child's chain code. `P` is `02`/`03` by the parity of y, then x,
 * big-endian; for Ed25519 these are the affine coordinates of the twisted Edwards form, a convention of the existing
 * system that is neither SLIP-10 nor BIP32-Ed25519. On secp256k1 this is BIP-32's public derivation.
 */

import { createHmac } from "node:crypto";

import { ed25519 } from "@noble/curves/ed25519.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";

import { DeriveError } from "./errors.js";
import { PATH_LEVELS_MAX } from "./request.js";

/** A derived key. */
export interface Child {
  /** Its public key: 33 bytes compressed for secp256k1, the usual 32 bytes for Ed25519. */
  publicKey: Uint8Array;
  /**
   * The child's secret key minus the parent's, modulo the group order, 32 bytes big-endian. Public: it follows from
   * public values. Zero for the empty path.
   */
  shift: Uint8Array;
  /** The child's own chain code. */
  chainCode: Uint8Array;
}

/** What the derivation needs to know of a curve's points; both curves' classes have it. */
interface Point<P> {
  add(other: P): P;
  is0(): boolean;
  toAffine(): { x: bigint; y: bigint };
}

/**
 * Derives along a path from a secp256k1 key: 33 bytes compressed, or X ‖ Y as in result documents.
 *
 * @throws {@link DeriveError} if the key is not on the curve, or the path is too long, hardened or (practically
 * impossible) without a key.
 */
export function deriveSecp256k1(parent: Uint8Array, chainCode: Uint8Array, path: readonly number[]): Child {
  const point = secp256k1Point(parent);
  const child = derive(point, secp256k1.Point.BASE, secp256k1.Point.Fn.ORDER, chainCode, path);
  return { publicKey: child.point.toBytes(true), shift: bigEndian(child.shift), chainCode: child.chainCode };
}

/**
 * Derives along a path from an Ed25519 key of 32 bytes.
 *
 * @throws {@link DeriveError} if the key is not in the prime-order group, or the path is too long, hardened or
 * (practically impossible) without a key.
 */
export function deriveEd25519(parent: Uint8Array, chainCode: Uint8Array, path: readonly number[]): Child {
  const point = ed25519Point(parent);
  const child = derive(point, ed25519.Point.BASE, ed25519.Point.Fn.ORDER, chainCode, path);
  return { publicKey: child.point.toBytes(), shift: bigEndian(child.shift), chainCode: child.chainCode };
}

function derive<P extends Point<P>>(
  parent: P,
  base: P & { multiply(scalar: bigint): P },
  order: bigint,
  masterChainCode: Uint8Array,
  path: readonly number[],
): { point: P; shift: bigint; chainCode: Uint8Array } {
  if (masterChainCode.length !== 32) {
    throw new DeriveError(`a chain code has 32 bytes, got ${masterChainCode.length}`);
  }
  if (path.length > PATH_LEVELS_MAX) {
    throw new DeriveError(`a path of ${path.length} levels, at most ${PATH_LEVELS_MAX} are allowed`);
  }
  let point = parent;
  let shift = 0n;
  let chainCode = Uint8Array.from(masterChainCode);
  for (const index of path) {
    if (!Number.isInteger(index) || index < 0 || index >= 2 ** 31) {
      throw new DeriveError(`the index must be an integer and non-hardened, got ${index}`);
    }
    const code = createHmac("sha512", chainCode).update(stepBytes(point, index)).digest();
    const scalar = BigInt(`0x${code.subarray(0, 32).toString("hex")}`) % order;
    if (scalar === 0n) {
      throw new DeriveError("this path has no key");
    }
    point = point.add(base.multiply(scalar));
    if (point.is0()) {
      throw new DeriveError("this path has no key");
    }
    shift = (shift + scalar) % order;
    chainCode = Uint8Array.from(code.subarray(32));
  }
  return { point, shift, chainCode };
}

/** `02`/`03` by the parity of y, then x, then the index, all big-endian. */
function stepBytes<P>(point: Point<P>, index: number): Uint8Array {
  const { x, y } = point.toAffine();
  const bytes = new Uint8Array(37);
  bytes[0] = 2 + Number(y & 1n);
  bytes.set(bigEndian(x), 1);
  new DataView(bytes.buffer).setUint32(33, index);
  return bytes;
}

/** A secp256k1 point from 33 bytes compressed, 64 bytes X ‖ Y, or 65 bytes with `04` in front. */
export function secp256k1Point(key: Uint8Array): InstanceType<typeof secp256k1.Point> {
  let encoded: Uint8Array = key;
  if (key.length === 64) {
    encoded = new Uint8Array(65);
    encoded[0] = 4;
    encoded.set(key, 1);
  }
  return onCurve("secp256k1", () => secp256k1.Point.fromBytes(encoded));
}

function ed25519Point(key: Uint8Array): InstanceType<typeof ed25519.Point> {
  const point = onCurve("Ed25519", () => ed25519.Point.fromBytes(key));
  if (point.is0() || !point.isTorsionFree()) {
    throw new DeriveError("the key is not in the prime-order group of Ed25519");
  }
  return point;
}

function onCurve<P>(curve: string, decode: () => P): P {
  try {
    return decode();
  } catch (error) {
    throw new DeriveError(`not a public key of ${curve}`, { cause: error });
  }
}

/** The compressed form, 33 bytes, of a secp256k1 key from a result document. */
export function secp256k1Compressed(key: Uint8Array): Uint8Array {
  return secp256k1Point(key).toBytes(true);
}

/** X ‖ Y, 64 bytes, of a secp256k1 key: the form in result documents. */
export function secp256k1Coordinates(key: Uint8Array): Uint8Array {
  return secp256k1Point(key).toBytes(false).slice(1);
}

/** 32 bytes, big-endian. */
export function bigEndian(number: bigint): Uint8Array {
  return new Uint8Array(Buffer.from(number.toString(16).padStart(64, "0"), "hex"));
}
