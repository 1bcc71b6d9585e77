/**
 * Who answered: the nodes' signatures over a result, and how many of them a client wants to see.
 *
 * A node signs the result document without its `attestations`, under a domain tag, with its identity key. Fewer than `t`
 * nodes together can neither sign nor learn a key, so whoever controls fewer than `t` can make fewer than `t`
 * attestations: `t` of them hold at least one honest node's. A signature carries those of its `t` signers, a new wallet
 * those of all members. An error carries that of the node which gave up; errors that follow from the request alone carry
 * none.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { PublicKey } from "./auth.js";
import { KeyError, NotAttestedError, messageOf } from "./errors.js";
import { encodeUtf8 } from "./gojson.js";
import type { Kind } from "./request.js";
import { attestedParts } from "./result.js";
import type { Attestation } from "./result.js";

/** Begins what a node signs; a zero byte and the document follow. */
const RESULT_TAG = "mpcium/1 result\0";

/** A node of the cluster: its UUID and its identity key. */
export interface Attester {
  /** Its UUID. */
  nodeId: string;
  /** Its Ed25519 identity key. */
  key: PublicKey;
}

/** The nodes of a cluster, and how many must have signed an answer. */
export class Attesters {
  /** How many must have signed a success: should be the number of nodes that sign together, `t`. */
  readonly forSuccess: number;
  /** How many must have signed an error. No error carries more than one today. */
  readonly forError: number;
  readonly #keys: ReadonlyMap<string, PublicKey>;

  /**
   * @throws {@link KeyError} if more signatures are demanded than there are nodes, or none.
   */
  constructor(nodes: readonly Attester[], forSuccess: number, forError = 1) {
    this.#keys = new Map(nodes.map((node) => [node.nodeId.toLowerCase(), node.key]));
    if (!Number.isInteger(forSuccess) || forSuccess < 1 || forSuccess > this.#keys.size) {
      const nodes = this.#keys.size;
      throw new KeyError(`${forSuccess} attestations are demanded of ${nodes} nodes, expected 1 to ${nodes}`);
    }
    this.forSuccess = forSuccess;
    this.forError = forError;
  }

  /**
   * From the files that operators have: `peers.json` and the folder with the identity files of all nodes in it.
   *
   * @throws {@link KeyError} if a file cannot be read or does not fit, or as the constructor does.
   */
  static async read(peers: string, identities: string, forSuccess: number): Promise<Attesters> {
    const nodes: Attester[] = [];
    for (const [name, nodeId] of Object.entries(await objectIn(peers))) {
      const path = join(identities, `${name}_identity.json`);
      const identity = await objectIn(path);
      if (typeof nodeId !== "string" || identity["node_id"] !== nodeId) {
        throw new KeyError(`${path}: node_id is ${String(identity["node_id"])}, expected ${String(nodeId)}`);
      }
      nodes.push({ nodeId, key: PublicKey.parse("ed25519", String(identity["public_key"])) });
    }
    return new Attesters(nodes, forSuccess);
  }

  /**
   * Checks that enough different nodes have signed a result document.
   *
   * @throws {@link NotAttestedError} if too few have; `DocumentError` if it is no such document.
   */
  check(kind: Kind, document: Uint8Array): void {
    const { success, document: signed, attestations } = attestedParts(kind, document);
    this.checkSigned(signed, attestations, success ? this.forSuccess : this.forError);
  }

  /**
   * Checks that so many different nodes have signed these bytes.
   *
   * @internal
   */
  checkSigned(signed: Uint8Array, attestations: readonly Attestation[], demanded: number): void {
    const message = Buffer.concat([encodeUtf8(RESULT_TAG), signed]);
    const good = new Set<string>();
    const refused: string[] = [];
    // A forger could make the check as long as he likes.
    for (const { nodeId, signature } of attestations.slice(0, 2 * this.#keys.size)) {
      const id = nodeId.toLowerCase();
      if (!good.has(id) && this.#keys.get(id)?.verifies(message, signature) === true) {
        good.add(id);
      } else {
        refused.push(nodeId.slice(0, 64));
      }
    }
    if (good.size < demanded) {
      throw new NotAttestedError(good.size, demanded, refused);
    }
  }
}

async function objectIn(path: string): Promise<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch (error) {
    throw new KeyError(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  throw new KeyError(`${path}: expected an object`);
}
