/** What can go wrong, one class per cause. Every error of this package is an {@link MpciumError}. */

import type { ErrorCode } from "./codes.js";
import type { Kind } from "./request.js";

/** The base of all errors of this package. */
export class MpciumError extends Error {
  override readonly name: string = "MpciumError";
}

/** A client id that cannot be used. */
export class ClientIdError extends MpciumError {
  override readonly name = "ClientIdError";
}

/** A prefix that cannot stand before a cluster's names. */
export class PrefixError extends MpciumError {
  override readonly name = "PrefixError";
}

/** A request with a value that no cluster acts on. Nothing was sent. */
export class InvalidRequestError extends MpciumError {
  override readonly name = "InvalidRequestError";
  /** The field's name in the document. */
  readonly field: string;
  /** What is expected and what was found. */
  readonly problem: string;

  constructor(field: string, problem: string) {
    super(`invalid request: ${field}: ${problem}`);
    this.field = field;
    this.problem = problem;
  }
}

/** A document that is not what it should be: a request or a result. */
export class DocumentError extends MpciumError {
  override readonly name = "DocumentError";
}

/** A public key that cannot be used. */
export class KeyError extends MpciumError {
  override readonly name = "KeyError";
}

/** Why a signer is of no use. */
export type SignerProblem = "file" | "content" | "passphrase" | "decrypt" | "missing-package" | "service";

/** A signer that did not sign, or a key that cannot be loaded. Never contains secrets. */
export class SignerError extends MpciumError {
  override readonly name = "SignerError";
  /** What kind of problem it is. */
  readonly problem: SignerProblem;

  constructor(problem: SignerProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}

/** There is no such child key. */
export class DeriveError extends MpciumError {
  override readonly name = "DeriveError";
}

/** The message bus did not do its part. */
export class BusError extends MpciumError {
  override readonly name = "BusError";
  /** What failed: a stream is neither there nor can be made, the request was not taken, results cannot be read. */
  readonly step: "stream" | "publish" | "consumer" | "query";

  constructor(step: BusError["step"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.step = step;
  }
}

/** The cluster answered with an error. */
export class RefusedError extends MpciumError {
  override readonly name = "RefusedError";
  /** The answer's code, if it is a known one. */
  readonly code: ErrorCode | undefined;
  /** The answer's code as it was written. */
  readonly codeText: string;
  /** The answer's reason, for people. */
  readonly reason: string;

  constructor(code: ErrorCode | undefined, codeText: string, reason: string) {
    super(`${codeText}: ${reason}`);
    this.code = code;
    this.codeText = codeText;
    this.reason = reason;
  }
}

/** No answer in time. The request may still be carried out; asking again with the same id is answered again. */
export class AnswerTimeoutError extends MpciumError {
  override readonly name = "AnswerTimeoutError";
  /** What was asked for. */
  readonly kind: Kind;
  /** The request's id. */
  readonly requestId: string;
  /** How long the call waited. */
  readonly waitedMs: number;

  constructor(kind: Kind, requestId: string, waitedMs: number) {
    super(
      `no answer to the ${kind} request ${JSON.stringify(requestId)} within ${waitedMs} ms; it may still be carried out: ` +
        "ask again with the same id and content, which is answered again and never done twice",
    );
    this.kind = kind;
    this.requestId = requestId;
    this.waitedMs = waitedMs;
  }
}

/** A result that does not hold what it claims: its signature does not verify under the key that it should. */
export class UnverifiedResultError extends MpciumError {
  override readonly name = "UnverifiedResultError";
}

/**
 * An answer came that too few nodes have signed: a forged one, or an error that follows from the request alone, which
 * nodes do not sign. Nothing is known about what became of the request.
 */
export class NotAttestedError extends MpciumError {
  override readonly name = "NotAttestedError";
  /** Different nodes of the list whose signature is good. */
  readonly good: number;
  /** How many are demanded. */
  readonly demanded: number;
  /** Ids in the answer that are not on the list, appear twice, or have not signed this. */
  readonly refused: readonly string[];

  constructor(good: number, demanded: number, refused: readonly string[]) {
    const notBy = refused.length === 0 ? "" : `; not by ${refused.join(", ")}`;
    super(`the answer is signed by ${good} nodes, expected ${demanded}${notBy}`);
    this.good = good;
    this.demanded = demanded;
    this.refused = refused;
  }
}

/** The client, or its connection, has been closed. */
export class ClosedError extends MpciumError {
  override readonly name = "ClosedError";

  constructor() {
    super("the client is closed");
  }
}

/** What an unknown thrown value says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
