// What one client says goes to all. Node's ws, as its documentation has it.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createRequire } from "node:module";

const [chain, key, modules] = process.argv.slice(2);
const { WebSocketServer, WebSocket } = createRequire(`${modules}/`)("ws");
const server = createServer({ cert: readFileSync(chain), key: readFileSync(key), ALPNProtocols: ["http/1.1"] });
const sockets = new WebSocketServer({ server });
sockets.on("connection", (socket) => {
    socket.on("error", () => {});
    socket.on("message", (data, binary) => {
        for (const client of sockets.clients) {
            if (client.readyState === WebSocket.OPEN) client.send(data, { binary });
        }
    });
});
server.listen(0, "127.0.0.1", 4096, () => console.log(server.address().port));
