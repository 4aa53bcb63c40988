// A WebSocket backend made of Node's ws, which is there to be restarted; restarted.py is its twin.
//
// Tells on stdout what it reads, a JSON object a line, and says it back. SIGTERM: it closes every socket, reads each
// until the Close is answered, and ends.

import { writeSync } from "node:fs";
import { WebSocketServer } from "ws";

const tell = (what) => writeSync(1, JSON.stringify(what) + "\n"); // at once, whatever becomes of the process

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });

server.on("listening", () => tell({ port: server.address().port }));

server.on("connection", (socket, { headers }) => {
  const session = headers["wssgate-session"];
  tell({ opened: headers["x-client"], session, messages: Number(headers["wssgate-messages"] ?? 0) });
  socket.on("message", (message) => {
    tell({ session, text: message.toString() });
    if (socket.readyState === socket.OPEN) socket.send(message.toString());
  });
});

process.on("SIGTERM", () => {
  server.close(); // accepts no more
  for (const socket of server.clients) socket.close(1012);
});
