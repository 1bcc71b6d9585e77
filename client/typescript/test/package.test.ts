/** The package as it would be published: what is in it, what its lock file says, what is documented. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFile(join(PACKAGE, path), "utf8");

test("only what belongs is packed", async () => {
  const packed = await promisify(execFile)("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: PACKAGE });
  const [listing] = JSON.parse(packed.stdout) as [{ files: { path: string }[] }];
  const paths = listing.files.map((file) => file.path).sort();
  const sources = (await readdir(join(PACKAGE, "src"))).map((name) => name.replace(/\.ts$/, ""));
  const built = sources.flatMap((name) => [".d.ts", ".d.ts.map", ".js", ".js.map"].map((end) => `dist/${name}${end}`));
  const expected = [
    ...["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json"],
    ...built,
    ...sources.map((name) => `src/${name}.ts`),
  ];
  assert.deepEqual(paths, expected.sort());
});

test("the lock file names no host", async () => {
  const lock = JSON.parse(await read("package-lock.json")) as { packages: Record<string, Record<string, unknown>> };
  for (const [name, entry] of Object.entries(lock.packages)) {
    assert.ok(!("resolved" in entry), name);
    assert.ok(name === "" || typeof entry["integrity"] === "string", `${name} has no checksum`);
  }
});

test("everything that is exported is documented", async () => {
  const bare: string[] = [];
  for (const name of (await readdir(join(PACKAGE, "dist"))).filter((name) => /(?<!gojson)\.d\.ts$/.test(name))) {
    const lines = (await read(`dist/${name}`)).split("\n");
    for (const [at, line] of lines.entries()) {
      const member = /^ {4}(?!private|#|readonly #|readonly ERROR_|readonly name\b|kind: "|constructor|\*|\/)[a-z[].*[;{]$/.test(line);
      const declared = /^export (declare|interface|type [A-Za-z]+[ <=])/.test(line);
      if (member || declared) {
        if (!/\*\/$/.test(lines[at - 1] ?? "")) {
          bare.push(`${name}:${at + 1}: ${line}`);
        }
      }
    }
  }
  assert.deepEqual(bare, []);
});

test("the quick start of the README is the example that is tested", async () => {
  const readme = await read("README.md");
  const example = await read("examples/quick-start.ts");
  assert.ok(readme.includes(`\`\`\`ts\n${example}\`\`\``), "README.md differs from examples/quick-start.ts");
});
