// Chromium, driven from outside: opens the gateway's console and uses it, by hand or by script.
// Tells in JSON what it has seen, and everything that the page complains about.

import { chromium } from "playwright-core";

const { url, socket, address, profile, patience, act } = JSON.parse(process.argv[2]);

const context = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  ignoreHTTPSErrors: true,
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
  const seen = act === "console" ? await useConsole(page) : await page.evaluate(talk, socket);
  console.log(JSON.stringify({ ...seen, title: await page.title(), complaints }));
} finally {
  await context.close();
}
