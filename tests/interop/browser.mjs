// Chromium, driven from outside: opens the gateway's console and uses it, by hand or by script.
// Tells in JSON what it has seen, and everything that the page complains about.
//
// With "chat" it talks without a pause until its input ends, and says how many echoes it had, as talker.mjs does.

import { chromium } from "playwright-core";

const { page: url, url: socket, address, profile, patience, act, trusts, login, login_form } = JSON.parse(process.argv[2]);

const context = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  httpCredentials: login, // what a person would type
  ignoreHTTPSErrors: !trusts, // the authorities of the user's own store are asked, or none
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    `--host-resolver-rules=MAP * ${address}`, // no other machine is ever asked
  ],
});

async function useConsole(page) {
  await page.click("#connect");
  await page.locator("#state", { hasText: /^open$/ }).waitFor();
  await page.fill("#text", "tom");
  await page.click("#send");
  await page.locator("#log .received", { hasText: /^tom$/ }).waitFor();
  await page.click("#close");
  const state = page.locator("#state", { hasText: "closed" });
  await state.waitFor();
  const log = await page.locator("#log span").allTextContents();
  return { state: await state.textContent(), log: log.reverse() };
}

// What any page would do.
function talk(address) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(address);
    const seen = { messages: [] };
    socket.onopen = () => {
      seen.extensions = socket.extensions;
      socket.send("tom");
    };
    socket.onmessage = ({ data }) => {
      seen.messages.push(data);
      socket.close();
    };
    socket.onerror = () => reject(new Error("the socket has failed"));
    socket.onclose = ({ code, wasClean }) => resolve({ ...seen, code, wasClean });
  });
}

// The same until it is told to stop.
function chat(address) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(address);
    let echoes = 0;
    const message = () => `message ${echoes} `.repeat(1 + (echoes % 200));
    socket.onopen = () => socket.send(message());
    socket.onmessage = ({ data }) => {
      if (data !== message()) reject(new Error(`in place of message ${echoes}: ${data.slice(0, 100)}`));
      if (echoes % 10 === 0) window.tell({ echoes });
      echoes += 1;
      if (window.stopped) socket.close(1000);
      else socket.send(message());
    };
    socket.onerror = () => reject(new Error("the socket has failed"));
    socket.onclose = ({ code }) => resolve({ ended: echoes, code });
  });
}

async function chatUntilStopped(page) {
  await page.exposeFunction("tell", (line) => console.log(JSON.stringify(line)));
  process.stdin.on("end", () => page.evaluate(() => (window.stopped = true))).resume();
  return await page.evaluate(chat, socket);
}

// noVNC's library, until its canvas shows a whole picture of the server's screen.
async function seeScreen(page) {
  await page.waitForFunction(() => window.show);
  return page.evaluate((address) => window.show(address), socket);
}

// noVNC's own page, until its canvas shows a whole picture.
async function seePage(page) {
  const look = await page.waitForFunction(() => {
    const canvas = document.querySelector("#noVNC_container canvas");
    if (!canvas || canvas.width === 0 || canvas.height === 0) return null;
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set(new Uint32Array(pixels.buffer));
    const isWhole = colours.size > 1 && !colours.has(0);
    return isWhole && { width: canvas.width, height: canvas.height, colours: colours.size };
  });
  return look.jsonValue();
}

// What a person types into the form of a login, by the names of its fields.
async function logIn(page) {
  for (const [name, text] of Object.entries(login_form)) await page.locator(`input[name="${name}"]`).fill(text);
  await page.locator(`input[name="password"]`).press("Enter");
}

// Home Assistant's pages, until they show what comes over its WebSocket.
async function useHomeAssistant(page) {
  await logIn(page);
  const item = page.locator("ha-sidebar").getByText("Overview");
  await item.waitFor();
  return { shows: true, text: await item.innerText() };
}

// A window of code-server, until it shows the files of its folder; when its input ends, one of them.
async function useCodeServer(page) {
  await logIn(page);
  const file = page.locator(".explorer-folders-view .monaco-list-row", { hasText: "hello.txt" });
  await file.waitFor();
  console.log(JSON.stringify({ opened: true }));
  await new Promise((resolve) => process.stdin.on("end", resolve).resume());
  await file.dblclick();
  const editor = page.locator(".editor-container .view-lines", { hasText: "hello" });
  await editor.waitFor();
  return { shows: true, text: await editor.innerText() };
}

const acts = {
  codeServer: useCodeServer,
  console: useConsole,
  homeAssistant: useHomeAssistant,
  novnc: seePage,
  talk: (page) => page.evaluate(talk, socket),
  chat: chatUntilStopped,
  vnc: seeScreen,
};

try {
  context.setDefaultTimeout(patience * 1000);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  await page.exposeFunction("complain", (complaint) => complaints.push(complaint));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      window.complain(`violation: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  await page.goto(url);
  const seen = await acts[act](page);
  console.log(JSON.stringify({ ...seen, title: await page.title(), complaints }));
} finally {
  await context.close();
}
