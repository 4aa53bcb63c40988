"use strict";

const LINES_MAX = 500;
const byId = (id) => document.getElementById(id);
const address = byId("address");
const text = byId("text");
let socket = null;
let opened = 0;

address.value = `${location.protocol === "http:" ? "ws" : "wss"}://${location.host}/wss`;

function say(kind, message) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  const body = document.createElement("span");
  time.textContent = new Date().toISOString().slice(11, 23);
  body.className = kind;
  body.textContent = message;
  line.append(time, body);
  byId("log").prepend(line);
  while (byId("log").childElementCount > LINES_MAX) byId("log").lastElementChild.remove();
}

function show(state) {
  const open = state === "open";
  byId("state").textContent = state;
  byId("connect").disabled = socket !== null;
  byId("close").disabled = socket === null;
  byId("send").disabled = !open;
  text.disabled = !open;
  if (open) text.focus();
}

function describe(data) {
  return typeof data === "string" ? data : `${data.byteLength} bytes of binary`;
}

byId("connection").addEventListener("submit", (event) => {
  event.preventDefault();
  opened = performance.now();
  try {
    socket = new WebSocket(address.value);
  } catch (error) {
    say("event", `not an address: ${error.message}`);
    return;
  }
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    say("event", `open after ${Math.round(performance.now() - opened)} ms`);
    show("open");
  };
  socket.onmessage = ({ data }) => say("received", describe(data));
  socket.onerror = () => say("event", "error");
  socket.onclose = ({ code, reason, wasClean }) => {
    say("event", `closed: code ${code}${reason ? `, reason "${reason}"` : ""}${wasClean ? "" : ", not clean"}`);
    socket = null;
    show(`closed (${code})`);
  };
  show("connecting");
});

byId("message").addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(text.value);
  say("sent", text.value);
  text.select();
});

byId("close").addEventListener("click", () => socket.close(1000, "bye"));
