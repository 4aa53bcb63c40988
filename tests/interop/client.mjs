// A WebSocket client made of Node's ws; client.py is its twin.
//
// Is told in JSON what to do, fails when an answer is wrong, and tells in JSON what it has seen.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { WebSocket } from "ws";

const TASK = JSON.parse(process.argv[2]);
const MEBIBYTE = 1024 * 1024;

function connect(path) {
  return new WebSocket(TASK.url + path, ["chat.v2", "chat.v1"], {
    ca: readFileSync(TASK.root),
    // Node may ask for one address or for all.
    lookup: (_name, { all }, answer) =>
      all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4),
    localAddress: TASK.client,
    headers: { "X-Forwarded-For": "203.0.113.7" },
    perMessageDeflate: TASK.deflate && { threshold: 0 },
  });
}

async function talk() {
  const socket = connect("/talk");
  const [[answer]] = await Promise.all([once(socket, "upgrade"), once(socket, "open")]);
  const seen = {
    extensions: answer.headers["sec-websocket-extensions"] ?? null,
    subprotocol: socket.protocol || null,
    messages: 0,
  };

  const hears = async (what, expected) => {
    const [data, isBinary] = await once(socket, "message");
    assert.ok((isBinary ? data : data.toString()) === expected || (isBinary && data.equals(expected)), what);
    seen.messages += 1;
  };
  const asks = async (what, message, expected) => {
    socket.send(message);
    await hears(what, expected);
  };
  const pings = async (payload) => {
    socket.ping(payload);
    const [pong] = await once(socket, "pong");
    assert.equal(pong.toString(), payload);
  };

  for (const message of ["tom", "", "Zoë pays 5 €", Buffer.from([...Array(256).keys()]), Buffer.alloc(0)]) {
    await asks("an echo", message, message);
  }
  for (let n = 0; n < 50; n += 1) {
    await asks("a repeated echo", `again and again, ${n}`, `again and again, ${n}`);
  }
  const text = "wssgate ".repeat(MEBIBYTE / 8);
  const noise = randomBytes(MEBIBYTE);
  await asks("1 MiB of text", text, text);
  await asks("1 MiB of noise", noise, noise);
  socket.send("first, ", { fin: false });
  const between = pings("between fragments");
  socket.send("second, ", { fin: false });
  await between;
  socket.send("last", { fin: true });
  await hears("a fragmented message", "first, second, last");
  await asks("the backend's fragments", "in pieces", "one, two, three");
  await asks("the backend's ping", "ping me", "ponged");
  await pings("from the client");
  socket.close(1000);
  await once(socket, "close");
  return seen;
}

async function closes(code, reason) {
  const ends = async (path, act) => {
    const socket = connect(path);
    socket.on("open", () => act(socket));
    const [code, reason] = await once(socket, "close");
    return [code, reason.toString()];
  };
  const query = `?reason=${encodeURIComponent(reason)}`;
  const seen = {
    client: await ends(`/closed-by-client/${code}`, (socket) => socket.close(code, reason)),
    backend: await ends(`/closed-by-backend/${code}${query}`, () => {}),
  };
  return { code, reason, seen };
}

const talked = await talk();
const closed = [];
for (const close of TASK.closes) closed.push(await closes(...close));
console.log(JSON.stringify({ talk: talked, closes: closed }));
