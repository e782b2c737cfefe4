/** Measures in a process of its own, so that W^X can be set before it starts. Prints operations per second as JSON. */
import { createHash } from "node:crypto";
import { hashes, sign, verify } from "@noble/ed25519";
import { controllerChannel, daemonChannel, type SessionSecrets } from "../../src/envelope/frame.ts";
import { importSigningKey } from "../../src/envelope/public-key.ts";
import { signReceipt, verifyReceipt } from "../../src/envelope/receipt.ts";
import { sha256 } from "../../src/envelope/statement.ts";

hashes.sha512 = (message) => createHash("sha512").update(message).digest();
const seconds = Number(process.argv[2] ?? 1);
const seed = new Uint8Array(32).fill(7);
const key = importSigningKey(seed);
const nodeId = "6f1c2b1e-3c1a-4d7e-8f59-0a1b2c3d4e5f";
const secrets: SessionSecrets = { nodeId, sessionId: sha256("s"), toController: sha256("c"), toDaemon: sha256("d") };
const body = new Uint8Array(32 * 1024).fill(1);
const message = new Uint8Array(110).fill(2);
const receipt = { nodeId, commandId: nodeId, commandBody: message, result: body };
const receiptSignature = signReceipt(key, receipt);
const signature = key.sign(message);
const nobleSignature = sign(message, seed);
const daemon = daemonChannel(secrets, key, key);
const controller = controllerChannel(secrets, key, key);
controller.open(daemon.seal("confirm", message, 1));

function rate(work: () => void): number {
  for (let warm = 0; warm < 20; warm++) work();
  const end = performance.now() + seconds * 1000;
  let count = 0;
  const started = performance.now();
  while (performance.now() < end) {
    work();
    count++;
  }
  return count / ((performance.now() - started) / 1000);
}

console.log(
  JSON.stringify({
    "progress frame sealed and opened": rate(() => {
      if (controller.open(daemon.seal("progress", body, 1)).kind !== "frame") throw new Error("refused");
    }),
    "receipt signed": rate(() => void signReceipt(key, receipt)),
    "receipt verified": rate(() => {
      if (!verifyReceipt(key, receipt, receiptSignature)) throw new Error("refused");
    }),
    "Ed25519 sign, node:crypto": rate(() => void key.sign(message)),
    "Ed25519 verify, node:crypto": rate(() => void key.verify(message, signature)),
    "Ed25519 sign, noble": rate(() => void sign(message, seed)),
    "Ed25519 verify, noble": rate(() => void verify(nobleSignature, message, key.raw)),
  }),
);
