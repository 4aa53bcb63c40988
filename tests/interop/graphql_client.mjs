// A client of GraphQL subscriptions.

import { readFileSync } from "node:fs";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const TASK = JSON.parse(process.argv[2]);
const options = {
  ca: readFileSync(TASK.root),
  lookup: (_name, { all }, answer) =>
    all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4),
};

let protocol;
class Socket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, options);
    this.once("open", () => (protocol = this.protocol));
  }
}

const client = createClient({ url: TASK.url, webSocketImpl: Socket, retryAttempts: 0 });
const counts = [];
for await (const { data } of client.iterate({ query: "subscription { count(to: 3) }" })) counts.push(data.count);
await client.dispose();
console.log(JSON.stringify({ counts, protocol }));
