// What a server of Phoenix does on the wire, for one socket: long polling, and version 2 of its serializer, whose messages
// are arrays in JSON or, for binary payloads, a head of lengths and the bytes. It takes pages of one origin only
// (`check_origin`). Pushes are answered with themselves, and what was told of the client.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const [, , origin] = process.argv;
const PUSH = 0;
const REPLY = 1;
const polled = new Map(); // clients that poll, by their tokens

// The reply to a message of a client's; a text or bytes, as the message is.
function replyTo(data, headers) {
  const { "x-real-ip": address, "x-forwarded-proto": scheme } = headers;
  if (Buffer.isBuffer(data)) return binaryReplyTo(data);
  const [joinRef, ref, topic, event, payload] = JSON.parse(data);
  const response = event === "phx_join" ? { address, scheme } : payload;
  return JSON.stringify([joinRef, ref, topic, "phx_reply", { status: "ok", response }]);
}

function binaryReplyTo(data) {
  const [kind, ...lengths] = data.subarray(0, 5);
  if (kind !== PUSH) throw new Error(`a message of kind ${kind}`);
  let at = 5;
  const [joinRef, ref, topic] = lengths.map((length) => data.subarray(at, (at += length)));
  const parts = [joinRef, ref, topic, Buffer.from("ok")];
  return Buffer.concat([Buffer.from([REPLY, ...parts.map((part) => part.length)]), ...parts, data.subarray(at)]);
}

async function body(request) {
  let text = "";
  for await (const part of request) text += part;
  return text;
}

class Poller {
  #messages = [];
  #answer = null;

  say(message) {
    this.#messages.push(message);
    if (this.#answer) this.poll(this.#answer);
  }

  poll(answer) {
    this.#answer = answer;
    if (this.#messages.length === 0) return;
    this.#answer = null;
    answer(200, this.#messages.splice(0));
  }
}

const http = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://phoenix");
  if (pathname !== "/socket/longpoll") return response.writeHead(404).end();
  if (request.headers.origin && request.headers.origin !== origin) return response.writeHead(403).end();
  let token = searchParams.get("token");
  const poller = polled.get(token);
  response.setHeader("Content-Type", "application/json");
  const answer = (status, messages) => response.end(JSON.stringify({ status, token, messages }));
  if (!poller) {
    token = randomUUID();
    polled.set(token, new Poller());
    return answer(410, []);
  }
  if (request.method === "GET") return poller.poll(answer);
  for (const line of (await body(request)).split("\n")) poller.say(replyTo(line, request.headers));
  return response.end(JSON.stringify({ status: 200 }));
});

const sockets = new WebSocketServer({ noServer: true });
http.on("upgrade", (request, socket, head) => {
  const { pathname, searchParams } = new URL(request.url, "http://phoenix");
  const isKnown = pathname === "/socket/websocket" && searchParams.get("vsn") === "2.0.0";
  if (!isKnown) return socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  if (request.headers.origin !== origin) return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  sockets.handleUpgrade(request, socket, head, (opened) => {
    opened.on("message", (data, isBinary) => opened.send(replyTo(isBinary ? data : data.toString(), request.headers)));
  });
});

http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: http.address().port })));
