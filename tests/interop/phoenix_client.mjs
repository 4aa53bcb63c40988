// The client of Phoenix: joins a topic, pushes texts and bytes, waits for a heartbeat, and leaves.

import dns from "node:dns";
import { LongPoll, Socket } from "phoenix";
import WebSocket from "ws";

const TASK = JSON.parse(process.argv[2]);
// The client has no setting for addresses; NODE_EXTRA_CA_CERTS has whom it trusts.
dns.lookup = (_name, options, answer) =>
  options.all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4);

// As a browser opens it from a page of this origin.
class OfPage extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { origin: TASK.origin });
  }
}

const answered = (push) =>
  new Promise((resolve, reject) => {
    push.receive("ok", resolve).receive("error", reject).receive("timeout", () => reject(new Error("a timeout")));
  });

async function talk(n) {
  const transport = TASK.way === "polling" ? LongPoll : OfPage;
  const socket = new Socket(TASK.url, { transport, heartbeatIntervalMs: 50 });
  const refused = new Promise((_, reject) => socket.onError(() => reject(new Error("refused"))));
  const beaten = new Promise((resolve) => {
    socket.onMessage((message) => {
      if (message.topic === "phoenix" && message.payload?.status === "ok") resolve(true);
      return message;
    });
  });
  socket.connect();
  const channel = socket.channel(`room:${n}`);
  try {
    const told = await Promise.race([answered(channel.join()), refused]);
    const { text } = await answered(channel.push("say", { text: `hello ${n}` }));
    if (TASK.way === "polling") return { ...told, text };
    const bytes = await answered(channel.push("bytes", new Uint8Array([n, 0, 255]).buffer));
    return { ...told, text, bytes: [...new Uint8Array(bytes)], beaten: await beaten };
  } catch (failure) {
    return { failure: failure.message };
  } finally {
    socket.disconnect();
  }
}

const seen = [];
for (let n = 0; n < TASK.clients; n += 1) seen.push(await talk(n));
console.log(JSON.stringify(seen));
process.exit(0); // polls that are kept
