// A client made of Node's ws that talks without a pause until its input ends; says how many echoes it had.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { WebSocket } from "ws";

const TASK = JSON.parse(process.argv[2]);

const socket = new WebSocket(TASK.url, {
  ca: readFileSync(TASK.root),
  // Node may ask for one address or for all.
  lookup: (_name, { all }, answer) =>
    all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4),
  perMessageDeflate: { threshold: 0 },
});
let stopped = false;
process.stdin.on("end", () => (stopped = true)).resume();
await once(socket, "open");
let echoes = 0;
for (; !stopped; echoes += 1) {
  const message = `message ${echoes} `.repeat(1 + (echoes % 200));
  socket.send(message);
  const [data] = await once(socket, "message");
  assert.equal(data.toString(), message);
  if (echoes % 10 === 0) console.log(JSON.stringify({ echoes }));
}
socket.close(1000);
const [code] = await once(socket, "close");
console.log(JSON.stringify({ ended: echoes, code }));
