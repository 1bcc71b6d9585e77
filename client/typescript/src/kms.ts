/**
 * A signer whose key never leaves AWS KMS. A module of its own, `mpcium-client/kms`, because it needs the package
 * `@aws-sdk/client-kms`, which others need not install.
 */

import { GetPublicKeyCommand, KMSClient, SignCommand } from "@aws-sdk/client-kms";
import type { KMSClientConfig } from "@aws-sdk/client-kms";
import { createHash } from "node:crypto";

import { PublicKey } from "./auth.js";
import { SignerError, messageOf } from "./errors.js";
import type { Signer } from "./signer.js";

/** Bytes of a message that KMS hashes itself. */
const RAW_BYTES_MAX = 4096;

/** Which key, and how to reach it. */
export interface KmsSignerOptions {
  /** The key's id, its ARN, or an alias (`alias/NAME` or its ARN). Spec `ECC_NIST_P256`, usage `SIGN_VERIFY`. */
  keyId: string;
  /** The AWS region. */
  region: string;
  /** Another address than AWS's, for emulators. */
  endpoint?: string;
  /** Fixed credentials, for development. Default: the SDK's chain (role, environment, profile, …). */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
  /** Everything else that the SDK's client takes (timeouts, retries, proxies, …). */
  client?: KMSClientConfig;
}

/**
 * Signs with a P-256 key in AWS KMS; KMS has no Ed25519 for this purpose. KMS hashes what is short enough for it, of
 * anything longer it is sent the digest: both give the same kind of signature. Each signature is different: sign a request once and pass it on when authorizers approve it.
 */
export class KmsSigner implements Signer {
  /** Always `p256`. */
  readonly algorithm = "p256";
  /** The key's id, ARN or alias. */
  readonly keyId: string;
  readonly #client: KMSClient;

  constructor(options: KmsSignerOptions) {
    for (const name of ["keyId", "region"] as const) {
      if (!options[name]) {
        throw new SignerError("content", `${name} is required for a KMS signer`);
      }
    }
    this.keyId = options.keyId;
    this.#client = new KMSClient({
      ...options.client,
      region: options.region,
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    });
  }

  /** See {@link Signer.sign}. */
  async sign(message: Uint8Array): Promise<Uint8Array> {
    const whole = message.length <= RAW_BYTES_MAX;
    const answer = await this.#ask("sign", () =>
      this.#client.send(
        new SignCommand({
          KeyId: this.keyId,
          Message: whole ? message : createHash("sha256").update(message).digest(),
          MessageType: whole ? "RAW" : "DIGEST",
          SigningAlgorithm: "ECDSA_SHA_256",
        }),
      ),
    );
    if (answer.Signature === undefined) {
      throw new SignerError("service", `KMS answered without a signature (key ${this.keyId})`);
    }
    return answer.Signature;
  }

  /**
   * The public key that a cluster has to know (`event_initiator_pubkey`; see {@link PublicKey.text}).
   *
   * @throws {@link SignerError} if KMS does not answer or the key is no P-256 key.
   */
  async publicKey(): Promise<PublicKey> {
    const answer = await this.#ask("tell the public key", () =>
      this.#client.send(new GetPublicKeyCommand({ KeyId: this.keyId })),
    );
    try {
      return PublicKey.fromP256Info(answer.PublicKey ?? new Uint8Array());
    } catch (error) {
      const problem = `the KMS key ${this.keyId} is ${answer.KeySpec ?? "of an unknown kind"}, expected ECC_NIST_P256`;
      throw new SignerError("service", problem, { cause: error });
    }
  }

  /** Closes the SDK's connections. */
  close(): void {
    this.#client.destroy();
  }

  async #ask<T>(what: string, send: () => Promise<T>): Promise<T> {
    try {
      return await send();
    } catch (error) {
      throw new SignerError("service", `KMS did not ${what} (key ${this.keyId}): ${messageOf(error)}`, { cause: error });
    }
  }
}
