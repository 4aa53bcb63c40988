// Each message is echoed, compressed if the client has offered that. Node's ws, as its documentation has it.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createRequire } from "node:module";

const [chain, key, modules] = process.argv.slice(2);
const { WebSocketServer } = createRequire(`${modules}/`)("ws");
const server = createServer({ cert: readFileSync(chain), key: readFileSync(key), ALPNProtocols: ["http/1.1"] });
// Without a threshold of 0, messages under 1,024 bytes are not compressed where each is compressed by itself.
const sockets = new WebSocketServer({ server, perMessageDeflate: { threshold: 0 } });
sockets.on("connection", (socket) => {
    socket.on("error", () => {});
    socket.on("message", (data, binary) => socket.send(data, { binary }));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
