// A client that says nothing until the gateway has pinged it three times; then its socket must
// still work.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { WebSocket } from "ws";

const { url, address, root } = JSON.parse(process.argv[2]);
const socket = new WebSocket(url, {
  ca: readFileSync(root),
  lookup: (_name, { all }, answer) => (all ? answer(null, [{ address, family: 4 }]) : answer(null, address, 4)),
});
await once(socket, "open");
for (let pings = 0; pings < 3; pings += 1) await once(socket, "ping");
socket.send("still here");
const [echo] = await once(socket, "message");
socket.close(1000);
const [code] = await once(socket, "close");
console.log(JSON.stringify({ echo: echo.toString(), code }));
