// Clients of SignalR. They keep cookies, as browsers do. Each tells what has answered it, or that it found no way.

import dns from "node:dns";
import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";

const TASK = JSON.parse(process.argv[2]);
// The client has no setting for addresses; NODE_EXTRA_CA_CERTS has whom it trusts.
dns.lookup = (_name, options, answer) =>
  options.all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4);

async function talk(n) {
  const { WebSockets, ServerSentEvents, LongPolling } = HttpTransportType;
  const transport = { any: WebSockets | ServerSentEvents | LongPolling, skip: WebSockets, events: ServerSentEvents }[TASK.way];
  const options = { transport, skipNegotiation: TASK.way === "skip" };
  const connection = new HubConnectionBuilder().withUrl(TASK.url, options).configureLogging(LogLevel.None).build();
  try {
    await connection.start();
  } catch {
    return { transport: null };
  }
  const result = await connection.invoke("Say", `hello ${n}`);
  const used = connection.connection.transport.constructor.name;
  await connection.stop();
  return { transport: used, ...result };
}

const seen = [];
for (let n = 0; n < TASK.clients; n += 1) seen.push(await talk(n));
console.log(JSON.stringify(seen));
process.exit(0); // connections that are kept
