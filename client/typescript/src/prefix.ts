/**
 * The prefix of a cluster that shares its NATS with others: in front of every subject and of every stream's name.
 *
 * Streams' names cannot hold dots; a dot becomes two hyphens, of which a part never has two in a row. Consumers need no
 * prefix: their names only count within their stream.
 */

import { PrefixError } from "./errors.js";

/** Bytes of a prefix. */
export const PREFIX_BYTES_MAX = 100;
/** The parts with which the cluster's own names begin. */
const OURS: readonly string[] = ["mpc", "mpcium"];
/** A part of a prefix. */
const PART = /^[A-Za-z0-9](?:-?[A-Za-z0-9_])*$/;

/** What stands before a cluster's names; by default nothing. */
export class Prefix {
  readonly #text: string;

  /** @throws {@link PrefixError} if the text is no prefix. */
  constructor(text = "") {
    if (text.length > PREFIX_BYTES_MAX) {
      throw new PrefixError(`a prefix has at most ${PREFIX_BYTES_MAX} bytes, got ${text.length}`);
    }
    for (const part of text === "" ? [] : text.split(".")) {
      if (!PART.test(part)) {
        const expected = "expected parts of ASCII letters, digits, _ and - separated by dots";
        throw new PrefixError(`a prefix: ${expected}, without - at their ends or twice in a row; got ${JSON.stringify(part)}`);
      }
      if (OURS.includes(part)) {
        throw new PrefixError(`${JSON.stringify(part)} cannot be a part of a prefix: the cluster's own names begin so`);
      }
    }
    this.#text = text;
  }

  /** A subject of this cluster. */
  subject(subject: string): string {
    return this.#text === "" ? subject : `${this.#text}.${subject}`;
  }

  /** A stream of this cluster. */
  stream(name: string): string {
    return this.#text === "" ? name : `${this.#text.replaceAll(".", "--")}-${name}`;
  }
}
