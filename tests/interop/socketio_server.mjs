// A server of Socket.IO, as its users write it: answers, and says who it is and whom it has heard.

import { createServer } from "node:http";
import { Server } from "socket.io";

const by = process.argv[2];
const http = createServer();

new Server(http).on("connection", (socket) => {
  socket.on("say", (text, answer) => answer({ text, by, address: socket.handshake.headers["x-real-ip"] }));
});

http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: http.address().port })));
