// Chromium on the page of the admin listener: reads it live and without scripts, by mouse and by keyboard, at three
// widths, in light and in the dark. Tells in JSON what it has seen, and everything that the page complains about.

import { chromium } from "playwright-core";

const { url, elsewhere, patience, pictures } = JSON.parse(process.argv[2]);
const WIDTHS = { 360: 780, 768: 1024, 1280: 900 };

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--host-resolver-rules=MAP * 127.0.0.2"],
});

const complaints = [];

async function open(options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(patience * 1000);
  const page = await context.newPage();
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  page.on("dialog", async (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`); // markup that has become a script
    await dialog.dismiss();
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      console.error(`violation: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return page;
}

const isLive = (page) => page.locator("#live.on", { hasText: "live" }).waitFor();

// What of the page is wider than its window.
const tooWide = (page) =>
  page.evaluate(() =>
    document.documentElement.scrollWidth <= innerWidth
      ? []
      : [...document.querySelectorAll("*")]
          .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
          .map((element) => `${element.tagName}.${element.getAttribute("class")}`),
  );

// Pairs of text and ground with less contrast than WCAG's AA wants.
const tooFaint = (page) =>
  page.evaluate(() => {
    const rgb = (color) => color.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
      const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const [r, g, b, a = 1] = rgb(getComputedStyle(at).backgroundColor);
        if (a === 1) return [r, g, b];
      }
      return [255, 255, 255];
    };
    const faint = new Set();
    for (const element of document.querySelectorAll("body *")) {
      const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      if (!hasText || !element.checkVisibility()) continue;
      const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05);
      if (contrast < 4.5) faint.add(`${element.tagName}.${element.className} ${contrast.toFixed(2)}`);
    }
    return [...faint];
  });

async function looks() {
  const seen = { wide: [], faint: [], small: [] };
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, height] of Object.entries(WIDTHS)) {
      const page = await open({ colorScheme, viewport: { width: Number(width), height } });
      for (const path of ["/", "/sessions", "/sessions/1"]) {
        await page.goto(url + path);
        await isLive(page);
        seen.wide.push(...(await tooWide(page)).map((what) => `${path} at ${width}: ${what}`));
        seen.faint.push(...(await tooFaint(page)).map((what) => `${path} ${colorScheme}: ${what}`));
        if (pictures) {
          const name = path === "/" ? "overview" : path.slice(1).replace("/", "-");
          await page.screenshot({ path: `${pictures}/${name}-${width}-${colorScheme}.png`, fullPage: true });
          await page.screenshot({ path: `${pictures}/${name}-${width}-${colorScheme}-top.png` });
        }
      }
      await page.context().close();
    }
  }
  return seen;
}

// By keyboard alone: the skip link, then a heading of the list, then the search.
async function byKeyboard() {
  const page = await open();
  await page.goto(`${url}/sessions`);
  await isLive(page);
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => document.activeElement.textContent);
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  await page.keyboard.press("Enter");
  const main = await page.evaluate(() => document.activeElement.id);
  await page.focus("thead a >> nth=0");
  await page.keyboard.press("Enter");
  await page.locator("th[aria-sort=descending]").waitFor();
  const stays = await page.evaluate(() => document.activeElement.closest("th")?.getAttribute("aria-sort"));
  await page.fill("#q", "nothing has this");
  await page.keyboard.press("Enter");
  await page.locator("caption", { hasText: "No sessions" }).waitFor();
  const address = new URL(page.url()).search;
  await page.goBack();
  await page.locator("th[aria-sort=descending]").waitFor();
  await page.context().close();
  return { first, outline, main, stays, address };
}

// What a screen reader finds.
async function structure() {
  const page = await open({ viewport: { width: 360, height: 780 } });
  await page.goto(url);
  await isLive(page);
  const seen = await page.evaluate(() => ({
    landmarks: ["header", "nav", "main", "footer"].filter((name) => !document.querySelector(name)),
    headings: document.querySelectorAll("h1").length,
    nameless: [...document.querySelectorAll("svg:not([aria-label]), table:not(:has(caption)), section:not([aria-labelledby])")].length,
    headless: [...document.querySelectorAll("thead th:not([scope]), tbody th:not([scope])")].length,
    roles: [...document.querySelectorAll("tr:not([role]), td:not([role]), th:not([role])")].length,
    ids: [...document.querySelectorAll("[id]")].map((element) => element.id).filter((id, n, all) => all.indexOf(id) !== n),
    language: document.documentElement.lang,
  }));
  await page.context().close();
  return seen;
}

async function withoutScripts() {
  const page = await open({ javaScriptEnabled: false });
  await page.goto(`${url}/`);
  const overview = await page.locator("main").textContent();
  await page.goto(`${url}/sessions?sort=-age`);
  await page.locator("#q").fill("nothing has this");
  await page.locator(".search button").click();
  const found = await page.locator("caption").textContent();
  const buttons = await page.locator("button.act:visible").count();
  await page.context().close();
  return { isWhole: overview.includes("Certificates"), found, buttons };
}

// A page of another site in the same browser.
async function fromElsewhere() {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.route("http://attacker.test/", (route) => route.fulfill({ contentType: "text/html", body: "<title>x</title>" }));
  await page.goto("http://attacker.test/");
  const seen = await page.evaluate(async ([url, port]) => {
    const read = async (address) => {
      try {
        return (await fetch(address)).status;
      } catch {
        return "refused";
      }
    };
    const talk = (address) =>
      new Promise((resolve) => {
        const socket = new WebSocket(address);
        socket.onopen = () => resolve("open");
        socket.onerror = () => resolve("refused");
      });
    const framed = () =>
      new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.src = url;
        frame.onload = () => {
          try {
            resolve(frame.contentDocument === null ? "refused" : `read ${frame.contentDocument.title}`);
          } catch {
            resolve("refused");
          }
        };
        document.body.append(frame);
      });
    return {
      fetched: await read(`${url}/status.json`),
      socket: await talk(`${url.replace("http", "ws")}/live`),
      framed: await framed(),
      // Its own name leads to the gateway's address now.
      rebound: await talk(`ws://attacker.test:${port}/live`),
    };
  }, [url, new URL(url).port]);
  const rebound = await page.goto(`http://attacker.test:${new URL(url).port}/status.json`);
  await context.close();
  return { ...seen, status: rebound.status() };
}

// The token is asked for, kept in memory, and gone with a reload; then a session is closed.
async function acts(token) {
  const page = await open();
  await page.goto(elsewhere);
  await page.locator("h1", { hasText: "needs a token" }).waitFor();
  await page.locator("dialog#token[open]").waitFor();
  await page.fill("#token-text", token);
  await page.keyboard.press("Enter");
  await isLive(page);
  await page.click("nav a >> text=Sessions");
  await page.locator("h1", { hasText: "Sessions" }).waitFor();
  const id = await page.locator("tbody th a").first().textContent();
  await page.locator("tbody th a").first().click();
  await page.locator("h1", { hasText: `Session ${id}` }).waitFor();
  await page.click("text=Close this session");
  await page.locator("#sure button.danger").click();
  await page.locator("main", { hasText: `There is no live session ${id}` }).waitFor();
  const kept = await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length, location.href]);
  await page.reload();
  await page.locator("dialog#token[open]").waitFor();
  await page.context().close();
  return { id, kept };
}

try {
  const seen = {
    looks: await looks(),
    keyboard: await byKeyboard(),
    structure: await structure(),
    plain: await withoutScripts(),
    acts: await acts(process.env.TOKEN),
    complaints,
  };
  console.log(JSON.stringify({ ...seen, attack: await fromElsewhere() }));
} finally {
  await browser.close();
}
