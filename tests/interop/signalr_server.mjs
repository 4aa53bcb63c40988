// What a server of SignalR does on the wire, for one hub: negotiation, the three transports, the handshake, invocations in
// JSON. A connection is known to the process that has negotiated it. Calls return who has answered, and what it was told of
// its client. With `polling` as its second word it takes no WebSockets and no event streams.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const [by, only] = process.argv.slice(2);
const END = "\x1e"; // of a message
const TRANSPORTS = [
  { transport: "WebSockets", transferFormats: ["Text", "Binary"] },
  { transport: "ServerSentEvents", transferFormats: ["Text"] },
  { transport: "LongPolling", transferFormats: ["Text", "Binary"] },
];
const connections = new Map();

class Connection {
  #waiting = "";
  #send = null;
  #isOpen = false;

  // What is said goes to `send`, until the next one.
  to(send) {
    this.#send = send;
    if (this.#waiting) this.say("");
  }

  say(text) {
    this.#waiting += text;
    if (!this.#send) return;
    const send = this.#send;
    const all = this.#waiting;
    this.#waiting = "";
    send(all);
  }

  once(send) {
    this.to((text) => {
      this.#send = null;
      send(text);
    });
  }

  hear(text, headers) {
    for (const message of text.split(END).slice(0, -1).map((one) => JSON.parse(one))) {
      if (!this.#isOpen) {
        this.#isOpen = message.protocol === "json" && message.version === 1;
        this.say(`{}${END}`);
      } else if (message.type === 1) {
        const { "x-real-ip": address, "x-forwarded-proto": scheme } = headers;
        const result = { text: message.arguments[0], by, address, scheme };
        this.say(JSON.stringify({ type: 3, invocationId: message.invocationId, result }) + END);
      }
    }
  }
}

async function body(request) {
  let text = "";
  for await (const part of request) text += part;
  return text;
}

const http = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://hub");
  if (pathname === "/hub/negotiate") {
    const id = randomUUID();
    connections.set(id, new Connection());
    response.setHeader("Content-Type", "application/json");
    const negotiated = { negotiateVersion: 1, connectionId: id, connectionToken: id, availableTransports: TRANSPORTS };
    return response.end(JSON.stringify(negotiated));
  }
  const id = searchParams.get("id");
  const connection = connections.get(id);
  if (!connection) return response.writeHead(404).end("No Connection with that ID");
  if (request.method === "POST") {
    connection.hear(await body(request), request.headers);
    return response.end();
  }
  if (request.method === "DELETE") {
    connection.once(() => {});
    connections.delete(id);
    return response.writeHead(202).end();
  }
  if (request.headers.accept === "text/event-stream") {
    if (only) return response.writeHead(404).end();
    response.writeHead(200, { "Content-Type": "text/event-stream" }).write(":\r\n\r\n");
    return connection.to((text) => response.write(`data: ${text}\r\n\r\n`));
  }
  // The first poll only says that there is a connection.
  if (!connection.isPolled) {
    connection.isPolled = true;
    return response.end();
  }
  connection.once((text) => response.end(text));
});

const sockets = new WebSocketServer({ noServer: true });
http.on("upgrade", (request, socket, head) => {
  const id = new URL(request.url, "http://hub").searchParams.get("id");
  // Without an id the client has skipped the negotiation.
  const connection = id === null ? new Connection() : connections.get(id);
  if (only || !connection) return socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  sockets.handleUpgrade(request, socket, head, (opened) => {
    connection.to((text) => opened.send(text));
    opened.on("message", (data) => connection.hear(data.toString(), request.headers));
  });
});

http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: http.address().port })));
