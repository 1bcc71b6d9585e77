import assert from "node:assert/strict";
import { test } from "node:test";

import { DEPTH_MAX, decodeBase64, decodeUtf8, parse, quoted, sameName } from "../src/gojson.js";

function stringOf(document: string | Uint8Array): string {
  const value = parse(typeof document === "string" ? Buffer.from(document) : document);
  assert.equal(value.kind, "string");
  return value.kind === "string" ? value.value : "";
}

test("strings are escaped like Go does it", () => {
  assert.equal(quoted("<>&"), String.raw`"\u003c\u003e\u0026"`);
  assert.equal(quoted("\u2028\u2029"), String.raw`"\u2028\u2029"`);
  assert.equal(quoted('"\\/\u007fé'), '"\\"\\\\/\u007fé"');
  assert.equal(quoted("\b\f\n\r\t\0\u001f\v"), String.raw`"\b\f\n\r\t\u0000\u001f\u000b"`);
});

test("every invalid byte becomes one replacement character", () => {
  const string = (...bytes: number[]) => stringOf(Uint8Array.from([0x22, ...bytes, 0x22]));
  assert.equal(string(0x61, 0xff, 0x62), "a\ufffdb");
  assert.equal(string(0xe2, 0x82), "\ufffd\ufffd");
  assert.equal(string(0xed, 0xa0, 0x80), "\ufffd\ufffd\ufffd");
  assert.equal(string(0xf0, 0x9f, 0x98, 0x41), "\ufffd\ufffd\ufffdA");
  assert.equal(string(0xc0, 0x80), "\ufffd\ufffd");
  assert.equal(string(0xf4, 0x90, 0x80, 0x80), "\ufffd".repeat(4));
  assert.equal(decodeUtf8(Buffer.from("\ufeffé😀€")), "\ufeffé😀€");
  assert.equal(decodeUtf8(Buffer.concat([Buffer.from("\ufeffé😀€"), Buffer.from([0xff])])), "\ufeffé😀€\ufffd");
});

test("surrogates pair or become replacement characters", () => {
  assert.equal(stringOf(String.raw`"\ud83d\ude00"`), "😀");
  assert.equal(stringOf(String.raw`"\ud83d"`), "\ufffd");
  assert.equal(stringOf(String.raw`"\ude00\ud83d"`), "\ufffd\ufffd");
  assert.equal(stringOf(String.raw`"\ud83d\ud83d\ude00"`), "\ufffd😀");
  assert.equal(stringOf(String.raw`"\ud83dA"`), "\ufffdA");
  assert.equal(stringOf(String.raw`"\ud83d\u0041"`), "\ufffdA");
});

test("what is not JSON is refused", () => {
  const bad = [
    "", " ", "{", "[1,]", '{"a":1,}', "{a:1}", '{"a" 1}', "01", "1.", ".5", "1e", "-", "+1", "nul", '"\t"', '"\\x"',
    '"\\\'"', '"\\u12g4"', '"', '"\\', '"\\u12', "{} {}", "1 x", "\ufeff{}", "[1 2]", "tru",
  ];
  for (const document of bad) {
    assert.throws(() => parse(Buffer.from(document)), { name: "JsonSyntaxError" }, JSON.stringify(document));
  }
});

test("nesting is limited", () => {
  const nested = (depth: number) => Buffer.from("[".repeat(depth) + "]".repeat(depth));
  assert.doesNotThrow(() => parse(nested(DEPTH_MAX)));
  assert.throws(() => parse(nested(DEPTH_MAX + 1)), /too deeply nested/);
  assert.throws(() => parse(Buffer.from("[".repeat(1_000_000))), /too deeply nested/);
});

test("base64 follows Go", () => {
  const good: [string, string][] = [["aGk=", "hi"], ["a\nGk\r=\n", "hi"], ["aGl=", "hi"], ["", ""]];
  for (const [text, expected] of good) {
    assert.deepEqual(decodeBase64(text), new Uint8Array(Buffer.from(expected)), text);
  }
  for (const bad of ["aGk", "aG=k", "aGk==", "a===", "=", "aGk= ", "aG-_", "aGk=aGk="]) {
    assert.equal(decodeBase64(bad), undefined, bad);
  }
});

test("names fold like Go does it", () => {
  assert.ok(sameName("wallet_id", "WALLET_ID"));
  assert.ok(sameName("signature", "\u017fignature"));
  assert.ok(sameName("key_type", "\u212aey_type"));
  assert.ok(!sameName("wallet_id", "walletid"));
  assert.ok(!sameName("tx", "tx_id"));
});
