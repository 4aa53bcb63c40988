// Queries over HTTP and subscriptions over a WebSocket, at one path.

import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import { buildSchema, graphql } from "graphql";
import { useServer } from "graphql-ws/use/ws";
import { WebSocketServer } from "ws";

const schema = buildSchema("type Query { hello: String } type Subscription { count(to: Int!): Int }");
const roots = {
  query: { hello: "tom" },
  subscription: {
    async *count({ to }) {
      for (let n = 1; n <= to; n += 1) yield { count: n };
    },
  },
};

const http = createServer(async (request, response) => {
  const { query } = await json(request);
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(await graphql({ schema, source: query, rootValue: roots.query })));
});
useServer({ schema, roots }, new WebSocketServer({ server: http, path: "/graphql" }));
http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: http.address().port })));
