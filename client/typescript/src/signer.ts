/**
 * Who signs a client's requests: the {@link Signer} interface and a signer with a local key.
 *
 * Key files are those of the existing system. Invariant: a secret key never appears in an error or when a signer is
 * printed.
 */

import { createPrivateKey, createPublicKey, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";
import { inspect } from "node:util";

import { p256 } from "@noble/curves/nist.js";
import { sha256 } from "@noble/hashes/sha2.js";

import { PublicKey } from "./auth.js";
import type { Algorithm } from "./auth.js";
import { SignerError, messageOf } from "./errors.js";

/** Where key files are by default. */
export const DEFAULT_KEY_FILE = "./event_initiator.key";
/** Bytes of a key file that are read. */
const KEY_FILE_BYTES_MAX = 64 * 1024;
/** DER of a PKCS#8 Ed25519 private key, up to the seed (RFC 8410). */
const ED25519_PRIVATE = Buffer.from("302e020100300506032b657004220420", "hex");

/** Signs requests as the initiator, or approvals as an authorizer: a local key, a key management service, an HSM. */
export interface Signer {
  /** The algorithm: for an initiator the cluster's `event_initiator_algorithm`. */
  readonly algorithm: Algorithm;
  /** Signs the bytes: 64 bytes for Ed25519, DER over their SHA-256 for P-256. */
  sign(message: Uint8Array): Promise<Uint8Array>;
}

type Secret = { algorithm: "ed25519"; key: KeyObject } | { algorithm: "p256"; scalar: Uint8Array };

/**
 * A secret key in memory. P-256 uses deterministic nonces (RFC 6979): signing twice gives the same signature, which
 * authorizers rely on.
 */
export class LocalSigner implements Signer {
  /** The public key that a cluster has to know. */
  readonly publicKey: PublicKey;
  readonly #secret: Secret;

  private constructor(secret: Secret, publicKey: PublicKey) {
    this.#secret = secret;
    this.publicKey = publicKey;
  }

  /** From the 32 bytes of an Ed25519 seed. */
  static fromSeed(seed: Uint8Array): LocalSigner {
    if (seed.length !== 32) {
      throw new SignerError("content", `no ed25519 key: expected 32 bytes, the seed, got ${seed.length}`);
    }
    const der = Buffer.concat([ED25519_PRIVATE, seed]);
    const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    der.fill(0);
    const info = createPublicKey(key).export({ format: "der", type: "spki" });
    return new LocalSigner({ algorithm: "ed25519", key }, PublicKey.fromEd25519(info.subarray(-32)));
  }

  /**
   * From the content of a key file. `ed25519`: the seed's 64 hexadecimal digits. `p256`: PKCS#8 or SEC1 in DER, raw or
   * hexadecimal (with or without `0x`). White space around text is ignored.
   *
   * @throws {@link SignerError} if the content is something else.
   */
  static parse(algorithm: Algorithm, content: Uint8Array | string): LocalSigner {
    const bytes = typeof content === "string" ? Buffer.from(content) : Buffer.from(content);
    const text = bytes.toString("latin1").trim().replace(/^0x/, algorithm === "p256" ? "" : "0x");
    const isHex = text.length % 2 === 0 && /^[0-9A-Fa-f]+$/.test(text);
    if (algorithm === "ed25519") {
      if (!isHex || text.length !== 64) {
        throw new SignerError("content", "no ed25519 key: expected 64 hexadecimal digits, the seed");
      }
      return LocalSigner.fromSeed(Buffer.from(text, "hex"));
    }
    return LocalSigner.#fromP256(isHex ? Buffer.from(text, "hex") : bytes);
  }

  static #fromP256(der: Buffer): LocalSigner {
    for (const type of ["pkcs8", "sec1"] as const) {
      try {
        const key = createPrivateKey({ key: der, format: "der", type });
        const { crv, d } = key.export({ format: "jwk" });
        if (crv === "P-256" && d !== undefined) {
          const info = createPublicKey(key).export({ format: "der", type: "spki" });
          const scalar = new Uint8Array(Buffer.from(d, "base64url"));
          return new LocalSigner({ algorithm: "p256", scalar }, PublicKey.fromP256Info(info));
        }
      } catch {
        // The other form, or none: said below, without what was read.
      }
    }
    throw new SignerError("content", "no p256 key: expected PKCS#8 or SEC1 in DER, raw or hexadecimal");
  }

  /**
   * From an age file that a passphrase protects. Takes about a second of work, by age's design. Needs the package
   * `age-encryption`.
   *
   * @throws {@link SignerError} if the passphrase is wrong, the file is damaged, or the content is no key.
   */
  static async parseEncrypted(algorithm: Algorithm, file: Uint8Array, passphrase: string): Promise<LocalSigner> {
    let age: typeof import("age-encryption");
    try {
      age = await import("age-encryption");
    } catch (error) {
      const problem = "an encrypted key file needs the package age-encryption: npm install age-encryption";
      throw new SignerError("missing-package", problem, { cause: error });
    }
    let content: Uint8Array;
    try {
      const decrypter = new age.Decrypter();
      decrypter.addPassphrase(passphrase);
      content = await decrypter.decrypt(new Uint8Array(file));
    } catch (error) {
      throw new SignerError("decrypt", `the key file cannot be decrypted: ${messageOf(error)}`, { cause: error });
    }
    try {
      return LocalSigner.parse(algorithm, content);
    } finally {
      content.fill(0);
    }
  }

  /**
   * Reads a key file; one whose name ends in `.age` is decrypted with the passphrase.
   *
   * @throws {@link SignerError} if the file cannot be read or decrypted, or holds no key.
   */
  static async read(
    algorithm: Algorithm,
    path: string = DEFAULT_KEY_FILE,
    options: { passphrase?: string } = {},
  ): Promise<LocalSigner> {
    let content: Buffer;
    try {
      content = await readFile(path);
    } catch (error) {
      throw new SignerError("file", `the key file cannot be read: ${messageOf(error)}`, { cause: error });
    }
    if (content.length > KEY_FILE_BYTES_MAX) {
      throw new SignerError("file", `${path} has ${content.length} bytes: no key file has more than ${KEY_FILE_BYTES_MAX}`);
    }
    try {
      if (!path.endsWith(".age")) {
        return LocalSigner.parse(algorithm, content);
      }
      if (options.passphrase === undefined) {
        throw new SignerError("passphrase", `${path} is encrypted: a passphrase is needed`);
      }
      return await LocalSigner.parseEncrypted(algorithm, content, options.passphrase);
    } finally {
      content.fill(0);
    }
  }

  /** See {@link Signer.algorithm}. */
  get algorithm(): Algorithm {
    return this.#secret.algorithm;
  }

  /** See {@link Signer.sign}. */
  sign(message: Uint8Array): Promise<Uint8Array> {
    const secret = this.#secret;
    if (secret.algorithm === "ed25519") {
      return Promise.resolve(new Uint8Array(sign(null, message, secret.key)));
    }
    const options = { prehash: false, lowS: false, format: "der" } as const;
    return Promise.resolve(p256.sign(sha256(message), secret.scalar, options));
  }

  /** Shows the public key only. */
  [inspect.custom](): string {
    return `LocalSigner(${this.algorithm} ${this.publicKey.text()})`;
  }
}
