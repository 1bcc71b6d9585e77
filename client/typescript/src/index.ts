/**
 * The TypeScript client of mpcium clusters.
 *
 * Start with {@link MpciumClient} and {@link LocalSigner}. The rest is the contract with clusters as plain functions:
 * documents, signed bytes, child keys, verification, and the forms of keys and signatures that chains use.
 *
 * @packageDocumentation
 */

export { Attesters } from "./attest.js";
export type { Attester } from "./attest.js";
export * from "./auth.js";
export * from "./chains.js";
export { DEFAULT_TIMEOUT_MS, MpciumClient } from "./client.js";
export type { ClientOptions, ListenOptions, SignOptions, WaitOptions } from "./client.js";
export * from "./codes.js";
export {
  deriveEd25519,
  deriveSecp256k1,
  secp256k1Compressed,
  secp256k1Coordinates,
} from "./derive.js";
export type { Child } from "./derive.js";
export {
  AnswerTimeoutError,
  BusError,
  ClientIdError,
  ClosedError,
  DeriveError,
  DocumentError,
  InvalidRequestError,
  KeyError,
  MpciumError,
  NotAttestedError,
  PrefixError,
  RefusedError,
  SignerError,
  UnverifiedResultError,
} from "./errors.js";
export type { SignerProblem } from "./errors.js";
export { fullBytes } from "./full.js";
export type { FullSignature } from "./full.js";
export type { WalletInfo } from "./query.js";
export { Listening, Received, Results } from "./listen.js";
export {
  approvalBytes,
  authorizerBytes,
  canonicalBytes,
  decodeRequest,
  digestOf,
  encodeRequest,
  requestId,
  validateRequest,
} from "./request.js";
export type {
  AuthorizerSignature,
  KeyType,
  KeygenRequest,
  Kind,
  MessageHash,
  MpciumRequest,
  RequestSignatures,
  ReshareRequest,
  SignRequest,
} from "./request.js";
export { decodeKeygenResult, decodeReshareResult, decodeSigningResult } from "./result.js";
export type {
  EcdsaSuccess,
  EddsaSuccess,
  Failure,
  KeygenResult,
  KeygenSuccess,
  ReshareResult,
  ReshareSuccess,
  ResultOf,
  SigningResult,
  SigningSubject,
  SigningSuccess,
} from "./result.js";
export * from "./signer.js";
