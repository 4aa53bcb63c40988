// Two MQTT clients made of npm's mqtt: one publishes, the other gets all of it in order. They offer the subprotocol "mqtt",
// and end if they don't get it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const TASK = JSON.parse(process.argv[2]);

function connect(clientId) {
  return mqtt.connectAsync(TASK.url, {
    clientId,
    protocolVersion: 5,
    keepalive: 1, // a ping a second
    reconnectPeriod: 0,
    ca: readFileSync(TASK.root),
    wsOptions: {
      lookup: (_name, { all }, answer) =>
        all ? answer(null, [{ address: TASK.address, family: 4 }]) : answer(null, TASK.address, 4),
    },
  });
}

const payload = (n) => Buffer.alloc(n % 10 === 9 ? 300_000 : n * 7, `${n}.`);

const [reader, writer] = await Promise.all([connect("reader"), connect("writer")]);
await reader.subscribeAsync("room/#", { qos: 1 });
let messages = 0;
const all = new Promise((resolve) =>
  reader.on("message", (topic, message) => {
    assert.equal(topic, `room/${messages}`);
    assert.ok(message.equals(payload(messages)), `message ${messages}`);
    messages += 1;
    if (messages === 60) resolve();
  }),
);
for (let n = 0; n < 60; n += 1) {
  await writer.publishAsync(`room/${n}`, payload(n), { qos: n % 2 });
}
await all;
// Quiet for longer than the broker would wait without a ping.
await new Promise((resolve) => setTimeout(resolve, 2000));
assert.ok(reader.connected && writer.connected);
await Promise.all([reader.endAsync(), writer.endAsync()]);
console.log(JSON.stringify({ messages }));
