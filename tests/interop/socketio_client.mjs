// Clients of Socket.IO, which poll first and then upgrade. They keep cookies, as browsers do.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Agent } from "node:https";
import { io } from "socket.io-client";

const TASK = JSON.parse(process.argv[2]);
const agent = new Agent({
  ca: readFileSync(TASK.root),
  lookup: (_name, { all }, answer) =>
    all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4),
});

async function talk(n) {
  const socket = io(TASK.url, { agent, withCredentials: true, forceNew: true, reconnection: false });
  const { engine } = socket.io;
  const transports = [engine.transport.name];
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  });
  if (engine.transport.name !== "websocket") await new Promise((resolve) => engine.once("upgrade", resolve));
  transports.push(engine.transport.name);
  const { text, by, address } = await socket.timeout(10_000).emitWithAck("say", `hello ${n}`);
  assert.equal(text, `hello ${n}`);
  socket.disconnect();
  return { transports, by, address };
}

const seen = [];
for (let n = 0; n < TASK.clients; n += 1) seen.push(await talk(n));
agent.destroy();
console.log(JSON.stringify(seen));
