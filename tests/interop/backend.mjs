// A WebSocket backend made of Node's ws; backend.py is its twin.
//
// Says everything back, and what it is asked for. Tells on stdout what it sees, a JSON object a line.

import { WebSocketServer } from "ws";

const tell = (what) => console.log(JSON.stringify(what));

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: process.argv[2] === "deflate" && { threshold: 0 },
  handleProtocols: (offered) => (offered.has("chat.v1") ? "chat.v1" : false),
});

server.on("listening", () => tell({ port: server.address().port }));

server.on("headers", (lines, request) => {
  const field = lines.find((line) => line.startsWith("Sec-WebSocket-Extensions: "));
  request.extensions = field?.slice(field.indexOf(" ") + 1) ?? null;
});

server.on("connection", (socket, request) => {
  const url = new URL(request.url, "http://backend");
  const { headers, extensions } = request;
  tell({ opened: url.pathname, headers, extensions, subprotocol: socket.protocol || null });
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
  socket.on("close", (code, reason) => tell({ closed: url.pathname, code, reason: reason.toString() }));
  if (url.pathname.startsWith("/closed-by-backend/")) {
    socket.close(Number(url.pathname.split("/").at(-1)), url.searchParams.get("reason") ?? "");
  }
});
