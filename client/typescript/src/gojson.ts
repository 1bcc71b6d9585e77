/**
 * JSON exactly as Go's `encoding/json` writes and reads it.
 *
 * Signatures cover a re-encoding of the decoded document, so every escape and every decoding rule is part of the
 * contract. Invariant: what {@link parse} accepts, Go's `json.Unmarshal` accepts with the same meaning (only nesting is
 * limited further), and what {@link ObjectWriter} produces equals `json.Marshal` with HTML escaping on.
 *
 * Go's strings are bytes, JavaScript's are UTF-16: a lone surrogate is written as U+FFFD, which is what a cluster makes
 * of it.
 */

/** Nesting of arrays and objects that is read. No document of the contract needs more than three. */
export const DEPTH_MAX = 128;

/** A parsed JSON value. Numbers keep their text: Go decides by the text whether one is an integer. */
export type JsonValue =
  | { readonly kind: "null" }
  | { readonly kind: "bool"; readonly value: boolean }
  | { readonly kind: "number"; readonly text: string }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "array"; readonly items: readonly JsonValue[] }
  | { readonly kind: "object"; readonly members: readonly (readonly [string, JsonValue])[] };

/** Why a document is not JSON. */
export class JsonSyntaxError extends Error {
  override readonly name = "JsonSyntaxError";
  /** Offset of the first byte that does not fit, from 0. */
  readonly offset: number;

  constructor(offset: number, problem: string) {
    super(`invalid JSON at byte ${offset}: ${problem}`);
    this.offset = offset;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const REPLACEMENT = "\ufffd";

/**
 * Parses one document with nothing but white space around it.
 *
 * @throws {@link JsonSyntaxError} at the first place where the bytes are not JSON, or nest deeper than
 * {@link DEPTH_MAX}.
 */
export function parse(bytes: Uint8Array): JsonValue {
  const parser = new Parser(bytes);
  parser.skipSpace();
  const value = parser.value(0);
  parser.skipSpace();
  if (parser.peek() !== undefined) {
    throw parser.error("data after the document");
  }
  return value;
}

class Parser {
  private at = 0;
  private readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  error(problem: string): JsonSyntaxError {
    return new JsonSyntaxError(this.at, problem);
  }

  peek(): number | undefined {
    return this.bytes[this.at];
  }

  skipSpace(): void {
    for (;;) {
      const byte = this.peek();
      if (byte !== 0x20 && byte !== 0x09 && byte !== 0x0d && byte !== 0x0a) {
        return;
      }
      this.at += 1;
    }
  }

  value(depth: number): JsonValue {
    const byte = this.peek();
    switch (byte) {
      case undefined:
        throw this.error("the document ends where a value was expected");
      case 0x7b: // {
        return this.object(depth + 1);
      case 0x5b: // [
        return this.array(depth + 1);
      case QUOTE:
        return { kind: "string", value: this.string() };
      case 0x74: // t
        return this.word("true", { kind: "bool", value: true });
      case 0x66: // f
        return this.word("false", { kind: "bool", value: false });
      case 0x6e: // n
        return this.word("null", { kind: "null" });
      default:
        if (byte === 0x2d || isDigit(byte)) {
          return this.number();
        }
        throw this.error("a value was expected");
    }
  }

  private word(word: string, value: JsonValue): JsonValue {
    for (let at = 0; at < word.length; at += 1) {
      if (this.bytes[this.at + at] !== word.charCodeAt(at)) {
        throw this.error("a value was expected");
      }
    }
    this.at += word.length;
    return value;
  }

  private object(depth: number): JsonValue {
    if (depth > DEPTH_MAX) {
      throw this.error("too deeply nested");
    }
    this.at += 1;
    const members: [string, JsonValue][] = [];
    this.skipSpace();
    if (this.peek() === 0x7d) {
      this.at += 1;
      return { kind: "object", members };
    }
    for (;;) {
      this.skipSpace();
      if (this.peek() !== QUOTE) {
        throw this.error("a member's name was expected");
      }
      const name = this.string();
      this.skipSpace();
      if (this.peek() !== 0x3a) {
        throw this.error("a colon was expected");
      }
      this.at += 1;
      this.skipSpace();
      members.push([name, this.value(depth)]);
      this.skipSpace();
      const byte = this.peek();
      if (byte === 0x2c) {
        this.at += 1;
      } else if (byte === 0x7d) {
        this.at += 1;
        return { kind: "object", members };
      } else {
        throw this.error("a comma or the end of the object was expected");
      }
    }
  }

  private array(depth: number): JsonValue {
    if (depth > DEPTH_MAX) {
      throw this.error("too deeply nested");
    }
    this.at += 1;
    const items: JsonValue[] = [];
    this.skipSpace();
    if (this.peek() === 0x5d) {
      this.at += 1;
      return { kind: "array", items };
    }
    for (;;) {
      this.skipSpace();
      items.push(this.value(depth));
      this.skipSpace();
      const byte = this.peek();
      if (byte === 0x2c) {
        this.at += 1;
      } else if (byte === 0x5d) {
        this.at += 1;
        return { kind: "array", items };
      } else {
        throw this.error("a comma or the end of the array was expected");
      }
    }
  }

  private digits(): number {
    const start = this.at;
    while (isDigit(this.peek())) {
      this.at += 1;
    }
    return this.at - start;
  }

  private number(): JsonValue {
    const start = this.at;
    if (this.peek() === 0x2d) {
      this.at += 1;
    }
    if (this.peek() === 0x30) {
      this.at += 1;
    } else if (this.digits() === 0) {
      throw this.error("a digit was expected");
    }
    if (this.peek() === 0x2e) {
      this.at += 1;
      if (this.digits() === 0) {
        throw this.error("a digit was expected");
      }
    }
    const exponent = this.peek();
    if (exponent === 0x65 || exponent === 0x45) {
      this.at += 1;
      const sign = this.peek();
      if (sign === 0x2b || sign === 0x2d) {
        this.at += 1;
      }
      if (this.digits() === 0) {
        throw this.error("a digit was expected");
      }
    }
    return { kind: "number", text: strictUtf8.decode(this.bytes.subarray(start, this.at)) };
  }

  private string(): string {
    this.at += 1;
    let text = "";
    for (;;) {
      const start = this.at;
      for (;;) {
        const byte = this.peek();
        if (byte === undefined || byte === QUOTE || byte === BACKSLASH || byte < 0x20) {
          break;
        }
        this.at += 1;
      }
      text += decodeUtf8(this.bytes.subarray(start, this.at));
      switch (this.peek()) {
        case QUOTE:
          this.at += 1;
          return text;
        case BACKSLASH:
          text += this.escape();
          break;
        case undefined:
          throw this.error("the document ends inside a string");
        default:
          throw this.error("a control character inside a string");
      }
    }
  }

  private escape(): string {
    this.at += 1;
    const byte = this.peek();
    if (byte === 0x75) {
      const unit = this.hex4(this.at + 1);
      if (unit === undefined) {
        throw this.error("four hexadecimal digits were expected");
      }
      this.at += 5;
      return this.utf16(unit);
    }
    const plain = byte === undefined ? undefined : ESCAPES.get(byte);
    if (plain === undefined) {
      throw this.error("an unknown escape");
    }
    this.at += 1;
    return plain;
  }

  /** The character for a UTF-16 unit that was just read; consumes a following low surrogate that completes it. */
  private utf16(unit: number): string {
    if (unit < 0xd800 || unit > 0xdfff) {
      return String.fromCharCode(unit);
    }
    if (unit < 0xdc00 && this.bytes[this.at] === BACKSLASH && this.bytes[this.at + 1] === 0x75) {
      const low = this.hex4(this.at + 2);
      if (low !== undefined && low >= 0xdc00 && low <= 0xdfff) {
        this.at += 6;
        return String.fromCharCode(unit, low);
      }
    }
    return REPLACEMENT;
  }

  private hex4(at: number): number | undefined {
    let unit = 0;
    for (let digit = 0; digit < 4; digit += 1) {
      const value = hexDigit(this.bytes[at + digit]);
      if (value === undefined) {
        return undefined;
      }
      unit = unit * 16 + value;
    }
    return unit;
  }
}

const ESCAPES: ReadonlyMap<number, string> = new Map([
  [QUOTE, '"'],
  [BACKSLASH, "\\"],
  [0x2f, "/"],
  [0x62, "\b"],
  [0x66, "\f"],
  [0x6e, "\n"],
  [0x72, "\r"],
  [0x74, "\t"],
]);

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

function hexDigit(byte: number | undefined): number | undefined {
  if (byte === undefined) {
    return undefined;
  }
  if (isDigit(byte)) {
    return byte - 0x30;
  }
  const letter = (byte | 0x20) - 0x61;
  return letter >= 0 && letter < 6 ? letter + 10 : undefined;
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text of bytes, each one that is not part of valid UTF-8 as one U+FFFD: `TextDecoder` replaces longer pieces at once. */
export function decodeUtf8(bytes: Uint8Array): string {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    let text = "";
    for (let at = 0; at < bytes.length; ) {
      const length = sequenceLength(bytes, at);
      text += length === 0 ? REPLACEMENT : strictUtf8.decode(bytes.subarray(at, at + length));
      at += Math.max(length, 1);
    }
    return text;
  }
}

/** Bytes of the UTF-8 sequence that begins at `at` (RFC 3629, section 4); 0 if none does. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at] ?? 0xff;
  if (first < 0x80) {
    return 1;
  }
  const continues = (offset: number, low = 0x80, high = 0xbf): boolean => {
    const byte = bytes[at + offset];
    return byte !== undefined && byte >= low && byte <= high;
  };
  if (first >= 0xc2 && first <= 0xdf) {
    return continues(1) ? 2 : 0;
  }
  if (first >= 0xe0 && first <= 0xef) {
    const low = first === 0xe0 ? 0xa0 : 0x80;
    const high = first === 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const low = first === 0xf0 ? 0x90 : 0x80;
    const high = first === 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

/**
 * Whether two member names are equal under Unicode simple case folding, as Go compares them. Only names that fold to
 * ASCII matter; two characters beyond ASCII do.
 */
export function sameName(a: string, b: string): boolean {
  return folded(a) === folded(b);
}

function folded(name: string): string {
  return name.replace(/[A-Z\u017f\u212a]/g, (character) => {
    switch (character) {
      case "\u017f":
        return "s";
      case "\u212a":
        return "k";
      default:
        return character.toLowerCase();
    }
  });
}

/** Decodes base64 by Go's rules: line breaks are skipped, padding is required, left-over bits are ignored. */
export function decodeBase64(text: string): Uint8Array | undefined {
  const digits = text.replace(/[\r\n]/g, "");
  if (digits.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(digits)) {
    return undefined;
  }
  return new Uint8Array(Buffer.from(digits, "base64"));
}

/** Standard base64 with padding. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/** A JSON string as Go writes it with HTML escaping. */
export function quoted(text: string): string {
  return `"${text.replace(/["\\<>&\u0000-\u001f\u2028\u2029]/g, escaped)}"`;
}

function escaped(character: string): string {
  switch (character) {
    case '"':
      return '\\"';
    case "\\":
      return "\\\\";
    case "\b":
      return "\\b";
    case "\f":
      return "\\f";
    case "\n":
      return "\\n";
    case "\r":
      return "\\r";
    case "\t":
      return "\\t";
    default:
      return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  }
}

/** A Go `[]byte`: base64 text, or `null` for nil. */
export function bytesText(bytes: Uint8Array | null | undefined): string {
  return bytes === null || bytes === undefined ? "null" : `"${encodeBase64(bytes)}"`;
}

/** Writes an object member by member, in the order of the calls. */
export class ObjectWriter {
  private readonly members: string[] = [];

  /** A member whose value is JSON text already. */
  raw(name: string, value: string): this {
    this.members.push(`${quoted(name)}:${value}`);
    return this;
  }

  /** A string member. */
  string(name: string, value: string): this {
    return this.raw(name, quoted(value));
  }

  /** A `[]byte` member. */
  bytes(name: string, value: Uint8Array | null | undefined): this {
    return this.raw(name, bytesText(value));
  }

  /** An integer member. */
  integer(name: string, value: number): this {
    return this.raw(name, String(value));
  }

  /** A `bool` member. */
  boolean(name: string, value: boolean): this {
    return this.raw(name, String(value));
  }

  /** A slice member: `null` for nil. */
  array<T>(name: string, items: readonly T[] | null | undefined, write: (item: T) => string): this {
    return this.raw(name, items === null || items === undefined ? "null" : `[${items.map(write).join(",")}]`);
  }

  /** The object's text. */
  text(): string {
    return `{${this.members.join(",")}}`;
  }

  /** The object's bytes. */
  finish(): Uint8Array {
    return encodeUtf8(this.text());
  }
}

const utf8 = new TextEncoder();

/** UTF-8; a lone surrogate becomes U+FFFD. */
export function encodeUtf8(text: string): Uint8Array {
  return utf8.encode(text);
}

/**
 * Reads the members of an object into fields, as Go fills a struct: a value of the wrong type is remembered as the first
 * error, the field keeps what it had, and the other members are still read.
 */
export class FieldReader {
  /** The first value that did not fit: field name and what was wrong. */
  firstError: string | undefined;

  /** Remembers that a field has a value that does not fit. */
  wrong(field: string, problem: string): void {
    this.firstError ??= `${field}: ${problem}`;
  }

  /** Remembers that a value has the wrong type. */
  wrongType(field: string, expected: string, got: JsonValue): void {
    const shown = got.kind === "number" ? `number ${shortened(got.text)}` : got.kind;
    this.wrong(field, `expected ${expected}, got ${shown}`);
  }

  /** A Go `string`: `null` leaves the field as it is. */
  string(field: string, value: JsonValue, before: string): string {
    if (value.kind === "string") {
      return value.value;
    }
    if (value.kind !== "null") {
      this.wrongType(field, "a string", value);
    }
    return before;
  }

  /** A Go `bool`: `null` leaves the field as it is. */
  boolean(field: string, value: JsonValue, before: boolean): boolean {
    if (value.kind === "bool") {
      return value.value;
    }
    if (value.kind !== "null") {
      this.wrongType(field, "a bool", value);
    }
    return before;
  }

  /** An integer from `min` to `max`, written without fraction and exponent: `null` leaves the field as it is. */
  integer(field: string, value: JsonValue, before: number, min: number, max: number): number {
    if (value.kind === "null") {
      return before;
    }
    if (value.kind === "number" && /^-?[0-9]+$/.test(value.text)) {
      const number = Number(value.text);
      if (number >= min && number <= max) {
        return number === 0 ? 0 : number;
      }
    }
    this.wrongType(field, "an integer that fits", value);
    return before;
  }

  /** A Go `[]byte`: base64 text, an array of numbers, or `null` for nil. */
  bytes(field: string, value: JsonValue, before: Uint8Array | null): Uint8Array | null {
    switch (value.kind) {
      case "null":
        return null;
      case "string": {
        const bytes = decodeBase64(value.value);
        if (bytes === undefined) {
          this.wrong(field, "not standard base64");
          return before;
        }
        return bytes;
      }
      case "array":
        return Uint8Array.from(value.items, (item) => this.integer(field, item, 0, 0, 255));
      default:
        this.wrongType(field, "base64 text", value);
        return before;
    }
  }

  /** A Go slice: an array whose items `read` turns into values, or `null` for nil. */
  slice<T>(field: string, value: JsonValue, before: T[] | null, read: (item: JsonValue) => T): T[] | null {
    switch (value.kind) {
      case "null":
        return null;
      case "array":
        return value.items.map(read);
      default:
        this.wrongType(field, "an array", value);
        return before;
    }
  }
}

function shortened(text: string): string {
  return text.length <= 32 ? text : `${text.slice(0, 32)}…`;
}
