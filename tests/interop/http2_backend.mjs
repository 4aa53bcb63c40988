// A backend over HTTP/2 without TLS, made of Node's http2, with ws on the streams of RFC 8441.
//
// Says bodies and messages back, and what it is asked for. Tells on stdout what it sees, a JSON object a line.

import { createServer } from "node:http2";
import { WebSocket } from "ws";

const tell = (what) => console.log(JSON.stringify(what));

const server = createServer({ settings: { enableConnectProtocol: process.argv[2] === "websockets" } });
let sessions = 0;

server.on("session", () => tell({ session: ++sessions }));

server.on("stream", (stream, headers) => {
  stream.on("error", () => {}); // a reset: its client is gone
  const url = new URL(headers[":path"], "http://backend");
  const method = headers[":method"];
  if (method === "CONNECT" && headers[":protocol"] === "websocket") {
    return websocket(stream, headers, url);
  }
  tell({ asked: url.pathname, method, authority: headers[":authority"], te: headers.te ?? null });
  stream.respond({ ":status": 200, "x-method": method }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "1" }));
  if (method === "GET") {
    stream.end(`${url.pathname}\n`);
  } else {
    stream.pipe(stream);
  }
});

function websocket(stream, headers, url) {
  const offered = (headers["sec-websocket-protocol"] ?? "").split(/, */);
  const subprotocol = offered.includes("chat.v1") ? "chat.v1" : null;
  tell({ opened: url.pathname, headers, extensions: null, subprotocol });
  stream.respond({ ":status": 200, ...(subprotocol && { "sec-websocket-protocol": subprotocol }) });
  const socket = new WebSocket(null, undefined, { autoPong: true }); // as ws makes its servers' own
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? null : data.toString();
    if (text === "ping me") {
      socket.ping("from the backend");
      socket.once("pong", (data) => socket.send(data.toString() === "from the backend" ? "ponged" : "not mine"));
    } else if (text === "in pieces") {
      socket.send("one, ", { fin: false });
      socket.send("two, ", { fin: false });
      socket.send("three", { fin: true });
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
  socket.on("error", (error) => tell({ error: error.message }));
  socket.on("close", (code, reason) => tell({ closed: url.pathname, code, reason: reason.toString() }));
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 0, skipUTF8Validation: false });
  if (url.pathname.startsWith("/closed-by-backend/")) {
    socket.close(Number(url.pathname.split("/").at(-1)), url.searchParams.get("reason") ?? "");
  }
}

server.listen(0, "127.0.0.1", () => tell({ port: server.address().port }));
