// The page, live: a WebSocket brings each view again, and this puts it into place without moving what is read.
// Without this script the page is whole, and stands still.
"use strict";

(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const news = document.getElementById("news");
  const NEWS_INTERVAL = 30_000; // a screen reader is not told more often
  const RETRY_MIN = 1_000;
  const RETRY_MAX = 15_000;

  let socket = null;
  let token; // in this tab's memory, and nowhere else
  let target = location.pathname + location.search;
  let opened = 0; // how many views were asked for: what comes of one before the last is late
  let retry = RETRY_MIN;
  let waits = false; // for a token: no use in trying again
  let pending = null; // what is to be done once there is a token
  let told = { at: 0, text: "" };

  document.documentElement.classList.add("live");

  function show(state, text) {
    live.className = state;
    if (live.textContent !== text) live.textContent = text;
  }

  function say(message) {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }

  function connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}/live`);
    socket.onopen = () => say({ open: target, number: (opened += 1), token });
    socket.onmessage = (event) => receive(JSON.parse(event.data));
    socket.onclose = () => {
      if (waits) return;
      show("off", "not connected: trying again");
      setTimeout(connect, retry);
      retry = Math.min(retry * 2, RETRY_MAX);
    };
  }

  function receive(message) {
    if (message.denied) {
      waits = true;
      show("off", message.denied);
      if (message.wants_token) askToken(token === undefined ? "" : message.denied).then(reconnect);
    } else if (message.main !== undefined) {
      retry = RETRY_MIN;
      show("on", "live");
      if (message.number !== opened) return;
      document.title = message.title;
      place(message.main);
      tell(message.title);
    } else if (message.refused) {
      const order = pending;
      if (message.wants_token && order) {
        token = undefined;
        askToken(message.refused).then((given) => given && act(order));
      } else {
        show("off", message.refused);
      }
    } else if (message.acted) {
      pending = null;
      announce(message.acted.ok ? "Done." : message.acted.error);
    }
  }

  function reconnect(given) {
    if (!given) return;
    waits = false;
    connect();
  }

  // ---- what is shown

  function place(html) {
    const next = new DOMParser().parseFromString(`<main>${html}</main>`, "text/html").querySelector("main");
    morph(main, next);
  }

  // Makes `old` what `next` is, and leaves alone what is the same: focus, selection, scroll and open details stay.
  function morph(old, next) {
    const olds = [...old.childNodes];
    const nexts = [...next.childNodes];
    nexts.forEach((node, n) => {
      const was = olds[n];
      if (!was) {
        old.append(document.importNode(node, true));
      } else if (was.nodeType !== node.nodeType || was.nodeName !== node.nodeName) {
        was.replaceWith(document.importNode(node, true));
      } else if (node.nodeType === Node.TEXT_NODE) {
        if (was.data !== node.data) was.data = node.data;
      } else if (node.nodeType === Node.ELEMENT_NODE) {
        attributes(was, node);
        morph(was, node);
      }
    });
    olds.slice(nexts.length).forEach((node) => node.remove());
  }

  function attributes(was, node) {
    for (const { name, value } of [...node.attributes]) {
      if (was.getAttribute(name) !== value) was.setAttribute(name, value);
    }
    for (const { name } of [...was.attributes]) {
      const stays = was.nodeName === "DETAILS" && name === "open";
      if (!stays && !node.hasAttribute(name)) was.removeAttribute(name);
    }
  }

  // A screen reader hears the title, which says how the gateway is, when it has changed.
  function tell(text) {
    const now = Date.now();
    if (text === told.text || now - told.at < NEWS_INTERVAL) return;
    told = { at: now, text };
    news.textContent = text;
  }

  function announce(text) {
    told = { at: Date.now(), text };
    news.textContent = text;
    show("on", text);
  }

  // ---- views

  function open(next, how) {
    target = next;
    if (how === "push") history.pushState(null, "", next);
    for (const link of document.querySelectorAll("header nav a")) {
      const path = link.getAttribute("href");
      const here = path === "/" ? next === "/" : next.startsWith(path);
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    say({ open: target, number: (opened += 1) });
  }

  const isView = (url) => url.origin === location.origin && /^\/(sessions(\/\d+)?)?$/.test(url.pathname);
  const isLive = () => socket && socket.readyState === WebSocket.OPEN && !waits;

  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const button = event.target.closest("button");
    if (button && button.dataset.command) return confirmAct(button);
    if (button && "token" in button.dataset) return void askToken("").then(reconnect);
    const link = event.target.closest("a[href]");
    if (!link || !isLive() || link.getAttribute("href").startsWith("#")) return;
    const url = new URL(link.href);
    if (!isView(url)) return;
    event.preventDefault();
    open(url.pathname + url.search, "push");
    if (!link.closest("thead")) {
      scrollTo(0, 0);
      main.focus({ preventScroll: true });
    }
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "get" || !isLive()) return;
    event.preventDefault();
    const query = new URLSearchParams(new FormData(form)).toString();
    open(`${new URL(form.action).pathname}?${query}`, "push");
  });

  addEventListener("popstate", () => {
    if (isLive()) open(location.pathname + location.search);
    else location.reload();
  });

  // ---- what changes something

  function ask(dialog) {
    return new Promise((resolve) => {
      dialog.returnValue = "no";
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
      dialog.showModal();
    });
  }

  async function askToken(why) {
    const dialog = document.getElementById("token");
    const input = document.getElementById("token-text");
    document.getElementById("token-title").textContent = why || "Token";
    input.value = "";
    if (dialog.open) return false;
    const given = await ask(dialog);
    if (given && input.value) token = input.value.trim();
    input.value = "";
    return given && token !== undefined;
  }

  async function confirmAct(button) {
    const { command, target: what } = button.dataset;
    const order = { command };
    if (command === "close") order.id = Number(what);
    else if (what !== undefined) order.target = what;
    document.getElementById("sure-text").textContent = what === undefined ? button.textContent : `${button.textContent}: ${what}`;
    if (await ask(document.getElementById("sure"))) act(order);
  }

  async function act(order) {
    pending = order;
    if (token === undefined && !(await askToken("Changing something needs the token"))) return;
    say({ act: order, token });
  }

  connect();
})();
