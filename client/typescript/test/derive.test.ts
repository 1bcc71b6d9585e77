/** Child keys against vectors that were computed independently. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { deriveEd25519, deriveSecp256k1, secp256k1Compressed, secp256k1Coordinates } from "../src/index.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));

interface Vector {
  curve: "secp256k1" | "ed25519";
  parent: string;
  chainCode: string;
  path: number[];
  child: string;
  shift: string;
  childChainCode?: string;
}

const VECTORS: Vector[] = [
  {
    curve: "secp256k1",
    parent:
      "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    chainCode: "aaa9a8a7a6a5a4a3a2a1a09f9e9d9c9b9a999897969594939291908f8e8d8c8b",
    path: [44, 60, 0, 0, 0],
    child: "02fd1192261b41954263f63859950b69b256088477137e8f1ef96c48eb6ec2da9f",
    shift: "6a46d629b698d338d0d1bf78fee97d159eb9e5b68f6ee6bfc12c6a12f4f096e9",
    childChainCode: "730c47dae636635c99bff6a910d9f84baed84463a092288afbbe1c7cbd7f9408",
  },
  {
    curve: "secp256k1",
    parent:
      "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    chainCode: "aaa9a8a7a6a5a4a3a2a1a09f9e9d9c9b9a999897969594939291908f8e8d8c8b",
    path: [44, 60, 0, 0, 1],
    child: "03bf79f782ba858392459d801d850cfdded4ed5f198176543396869c002ee1f377",
    shift: "c2ed55b90a838dc428163ef617d08fbbda98e8705d84431707d5057450daa06f",
    childChainCode: "0802819c9f2abd587dad941f2d19309392e35fbe90242db63c9a3d6c67bbbdc9",
  },
  {
    curve: "secp256k1",
    parent:
      "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    chainCode: "aaa9a8a7a6a5a4a3a2a1a09f9e9d9c9b9a999897969594939291908f8e8d8c8b",
    path: [44, 60, 0, 0, 999],
    child: "0351cd6b8f66b7f5f1d3e9fafbb355053d6ebe58218c607eb98cf33850c5bcba4c",
    shift: "97329ed0ead3a677c46f87a9af85643d6c12115fac5220b5ad73636acd794d06",
    childChainCode: "877dad7075649aaf08972b8bca5bf0c120a056ee9a5e2c62ae5fd93a3e4dd839",
  },
  {
    curve: "secp256k1",
    parent:
      "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    chainCode: "aaa9a8a7a6a5a4a3a2a1a09f9e9d9c9b9a999897969594939291908f8e8d8c8b",
    path: [0],
    child: "028db0c985f6171680d7927f7793f2d7ab6e87c4bbc1b400c150ff7a352037617b",
    shift: "661183b42ba97c827a8302de9d0829e30ca08ea892b5b6cc6616802dde6f027c",
    childChainCode: "d1ea1a165d12b2be253ec3a68e14ede92a3ea17f79872cc77b2fc99b8681e205",
  },
  {
    curve: "secp256k1",
    parent:
      "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    chainCode: "aaa9a8a7a6a5a4a3a2a1a09f9e9d9c9b9a999897969594939291908f8e8d8c8b",
    path: [2147483647],
    child: "03268908874c59f3efb7dce0ea7d4f3cac9ba6fb0e52b29cb2409f38109c496899",
    shift: "2ea31601a2a4f200f7341acd86fc449e9e06b08580e47f686994678f2f922a27",
    childChainCode: "ebe7cc35e5b5063415be81937bf9ce8eb4ca748a7f7453923a9c2782089ebca4",
  },
  {
    curve: "secp256k1",
    parent:
      "54103317f43c66ce1ebec1c671e06de728277e98ce2fad7d9ed08f609fb2fe54" +
      "9ab442ef4d1c8e79431a97e2ff7986a7a701aa3af029630ff039207a0a272295",
    chainCode: "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb",
    path: [1, 2, 3],
    child: "037e12c284100bc6e1775e68235efc75767daeb805b43c439055879ae73e268717",
    shift: "965c28455919ad6b2342133fa99cd25e0f9be78d613fe1711867c1f5706458a8",
  },
  {
    curve: "secp256k1",
    parent:
      "54103317f43c66ce1ebec1c671e06de728277e98ce2fad7d9ed08f609fb2fe54" +
      "9ab442ef4d1c8e79431a97e2ff7986a7a701aa3af029630ff039207a0a272295",
    chainCode: "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb",
    path: [44, 0, 0, 0, 7],
    child: "03e4901397de8605d6ba66b67555005aa9eca75d3c8508bc80c0976c3d9842d6d9",
    shift: "c5a42f472d4db99ddc30fc9aeee1508c3ad679ac742a777dfb461bffcdf4bd5e",
  },
  {
    curve: "ed25519",
    parent:
      "5866666666666666666666666666666666666666666666666666666666666666",
    chainCode: "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
    path: [44, 501, 0, 0],
    child: "dd8c985814d89a8ac48ab01ca5f065107add1b26a27e82d3930f80d26efb50cc",
    shift: "0e8d1bb2d1bf3ef4a7d85b8114aae5c3895b72a4052004e77df9eccdd455ce9f",
    childChainCode: "f0d06d223d20c6d70656e33aacfe950283874e930c2eea04dfc6c82c9d6534b9",
  },
  {
    curve: "ed25519",
    parent:
      "5866666666666666666666666666666666666666666666666666666666666666",
    chainCode: "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
    path: [44, 501, 1, 0],
    child: "68538c4932025f674e773e153fa2f5edfb38166786b5bd03e507c1fee3772b59",
    shift: "091d557b95b63acb0af15f5bc2be75a7ec52d40e76ef1b6806e33688fa32acdf",
    childChainCode: "0ca39b0b110ed672d9db5a57d76eda7d80c8be70cd0d4c4708242dfadc7b9dcc",
  },
  {
    curve: "ed25519",
    parent:
      "5866666666666666666666666666666666666666666666666666666666666666",
    chainCode: "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
    path: [44, 501, 99, 0],
    child: "c5e8c64572e3356027e3d878c762150220e37593662862105d8b49d8b9602b1a",
    shift: "080ea1771e35c7e8908b6bcc32cd5b36eeca0a6d1b36d04de5b1f9111e476c66",
    childChainCode: "6a897383f8de195db42a182d80d6021f6154ad35611438bf3769a6aa5e7f3e7f",
  },
  {
    curve: "ed25519",
    parent:
      "5866666666666666666666666666666666666666666666666666666666666666",
    chainCode: "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
    path: [0],
    child: "8c40aebc050849f7ee43f18f9a0d2f576d58aea61d5ca71a7e2a5c6174ee6748",
    shift: "0ed85d703645c9577e45de55862c20de673624ac3ef34613cd4f1020929a10e7",
    childChainCode: "3c186c67a3220cca7511b2ef6916d7ad02a5741713d0f47bd24f3b270171e0eb",
  },
  {
    curve: "ed25519",
    parent:
      "5866666666666666666666666666666666666666666666666666666666666666",
    chainCode: "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
    path: [2147483647],
    child: "d114606535f76aa1bae82b1845d3ca901365369fa06b4874ed399686f9cdead8",
    shift: "05adb3d962f82482f3d04982a3073899498a44845950b0f3e5bd758be11709ab",
    childChainCode: "eb8c6d30b160deced1f5a54d9f9de7c9c0b47c15315486163033bfce78a0716c",
  },
  {
    curve: "ed25519",
    parent:
      "4577c0b8e955e03e2ba0075d6e89a7461dd7a9da101347672187efaec2ba5ee8",
    chainCode: "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb",
    path: [1, 2, 3],
    child: "1e3f482f5858eb932f1b088ed1ceef2df39ce7c14c3b3a27533a71a883ee23f8",
    shift: "06427aa745bc6fefee7ea62d599334ec41a6c057df550fe99b5f7f7fc53fa946",
  },
  {
    curve: "ed25519",
    parent:
      "4577c0b8e955e03e2ba0075d6e89a7461dd7a9da101347672187efaec2ba5ee8",
    chainCode: "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb",
    path: [44, 501, 0, 0],
    child: "da1018c3f09b9bae21d4b74fbdbcdc5440829ecadf3320f7aaf3826b7cef20cc",
    shift: "04d3577efff0e5d501b23a361c7458f72955f814344c6fb01224ec1d2a3f84cf",
  },
  {
    curve: "ed25519",
    parent:
      "4577c0b8e955e03e2ba0075d6e89a7461dd7a9da101347672187efaec2ba5ee8",
    chainCode: "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb",
    path: [44, 60, 0, 0, 1],
    child: "ef2fae68ce464762adfa1ba338b038bc94ba530e9fa351e7132818eb5ec97b17",
    shift: "0598c900428b4368e3f03a1cac20a79ef474da16c6b57fc73d5a98bcd6650249",
  },
];

for (const { curve, parent, chainCode, path, child, shift, childChainCode } of VECTORS) {
  test(`${curve} child ${JSON.stringify(path)} of ${parent.slice(0, 8)}`, () => {
    const derive = curve === "secp256k1" ? deriveSecp256k1 : deriveEd25519;
    const derived = derive(unhex(parent), unhex(chainCode), path);
    assert.equal(hex(derived.publicKey), child);
    assert.equal(hex(derived.shift), shift);
    if (childChainCode !== undefined) {
      assert.equal(hex(derived.chainCode), childChainCode);
    }
  });
}

const G = unhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
const B = unhex("5866666666666666666666666666666666666666666666666666666666666666");
const CHAIN_CODE = new Uint8Array(32).fill(7);

test("the empty path is the parent", () => {
  for (const [derive, parent] of [[deriveSecp256k1, G], [deriveEd25519, B]] as const) {
    const child = derive(parent, CHAIN_CODE, []);
    assert.deepEqual(child, { publicKey: parent, shift: new Uint8Array(32), chainCode: CHAIN_CODE });
  }
});

test("the second step continues where the first ended", () => {
  for (const [derive, parent] of [[deriveSecp256k1, G], [deriveEd25519, B]] as const) {
    const first = derive(parent, CHAIN_CODE, [3]);
    assert.deepEqual(derive(first.publicKey, first.chainCode, [4]).publicKey, derive(parent, CHAIN_CODE, [3, 4]).publicKey);
  }
});

test("forms of secp256k1 keys", () => {
  const coordinates =
    "fd1192261b41954263f63859950b69b256088477137e8f1ef96c48eb6ec2da9f" +
    "73063d4ca47c4633270ae4702e6cf051ea05684950edf5f14f955d7f780c4be8";
  const compressed = "02fd1192261b41954263f63859950b69b256088477137e8f1ef96c48eb6ec2da9f";
  assert.equal(hex(secp256k1Compressed(unhex(coordinates))), compressed);
  assert.equal(hex(secp256k1Compressed(unhex(`04${coordinates}`))), compressed);
  assert.equal(hex(secp256k1Coordinates(unhex(compressed))), coordinates);
});

test("impossible parents and paths are refused", () => {
  const refused = (run: () => unknown) => assert.throws(run, { name: "DeriveError" });
  refused(() => deriveSecp256k1(G, CHAIN_CODE, [2 ** 31]));
  refused(() => deriveEd25519(B, CHAIN_CODE, [0, 2 ** 32 - 1]));
  refused(() => deriveEd25519(B, CHAIN_CODE, [0.5]));
  refused(() => deriveSecp256k1(G, CHAIN_CODE, new Array<number>(256).fill(0)));
  refused(() => deriveSecp256k1(G, CHAIN_CODE.subarray(1), [0]));
  refused(() => deriveSecp256k1(new Uint8Array(33), CHAIN_CODE, [0]));
  refused(() => deriveSecp256k1(new Uint8Array(64).fill(0xff), CHAIN_CODE, [0]));
  const neutral = new Uint8Array(32);
  neutral[0] = 1;
  for (const bad of [new Uint8Array(32), new Uint8Array(32).fill(2), new Uint8Array(32).fill(0xff), neutral]) {
    refused(() => deriveEd25519(bad, CHAIN_CODE, [0]));
  }
});
