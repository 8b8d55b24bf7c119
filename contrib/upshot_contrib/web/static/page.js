// Times as "3 min ago", and a page that keeps itself up to date. Without this script it is complete,
// and shows how things were when it was loaded.
"use strict";

// -- times ----------------------------------------------------------------------------------

const STEPS = [[60, 1, "second"], [3600, 60, "minute"], [86400, 3600, "hour"], [2592000, 86400, "day"]];
const spans = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "narrow" });

function ago(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  if (Math.abs(seconds) < 1) return "just now";
  for (const [below, unit, name] of STEPS) {
    if (Math.abs(seconds) < below) return spans.format(-Math.round(seconds / unit), name);
  }
  return iso.slice(0, 10);
}

function tellTimes(root) {
  for (const each of root.querySelectorAll("time")) {
    const text = ago(each.dateTime);
    if (each.textContent !== text) each.textContent = text;
  }
}

// -- changes --------------------------------------------------------------------------------

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.dataset.key) || null;

function isAlike(was, now) {
  return was.nodeType === now.nodeType && was.nodeName === now.nodeName && keyOf(was) === keyOf(now);
}

// Makes `was` what `now` is, and keeps every node that is in both: focus, selection and the place
// to which somebody has scrolled stay where they are.
function become(was, now) {
  if (was.nodeType !== Node.ELEMENT_NODE) {
    if (was.nodeValue !== now.nodeValue) was.nodeValue = now.nodeValue;
    return;
  }
  for (const { name } of [...was.attributes]) {
    if (!now.hasAttribute(name) && name !== "hidden") was.removeAttribute(name);
  }
  for (const { name, value } of [...now.attributes]) {
    if (was.getAttribute(name) !== value && name !== "hidden") was.setAttribute(name, value);
  }
  becomeChildren(was, now);
}

function becomeChildren(was, now) {
  const known = new Map();
  for (const child of was.children) if (keyOf(child)) known.set(keyOf(child), child);
  let at = was.firstChild;
  for (const next of [...now.childNodes]) {
    const key = keyOf(next);
    const same = key ? known.get(key) : at && !keyOf(at) && isAlike(at, next) ? at : null;
    if (!same || !isAlike(same, next)) {
      if (next.nodeName === "TR") next.classList.add("news");
      was.insertBefore(next, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else was.insertBefore(same, at);
    if (same.dataset && same.dataset.state !== next.dataset.state) next.classList.add("news");
    become(same, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function replace(part, html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  tellTimes(parsed.body);
  const focused = document.activeElement;
  becomeChildren(part, parsed.body);
  if (focused && focused.isConnected && focused !== document.activeElement) {
    focused.focus({ preventScroll: true });
  }
  offerCopies(part);
}

// -- live -----------------------------------------------------------------------------------

const WORDS = { on: "Live", paused: "Paused", lost: "Not connected", over: "Ended" };

class Live {
  constructor(part, state) {
    this.part = part;
    this.state = state;
    this.source = null;
    this.isPaused = false;
    this.button = document.getElementById("live-button");
    this.button.addEventListener("click", () => this.toggle());
    // A browser has six connections to a server: pages that nobody sees give theirs back.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.open());
    if (!document.hidden) this.open();
    state.hidden = false;
  }

  tell(what) {
    this.state.dataset.is = what;
    document.getElementById("live-text").textContent = WORDS[what];
    this.button.hidden = what === "over";
    this.button.textContent = this.isPaused ? "Resume" : "Pause";
  }

  toggle() {
    this.isPaused = !this.isPaused;
    if (this.isPaused) this.close();
    else this.open();
    this.tell(this.isPaused ? "paused" : "on");
  }

  open() {
    if (this.source || this.isPaused || this.state.dataset.is === "over") return;
    const { events, version } = this.part.dataset;
    this.source = new EventSource(`${events}&seen=${version}`);
    this.source.addEventListener("open", () => {
      this.tell("on");
      this.trouble(""); // was that of another stream: what is still wrong will be told again
    });
    this.source.addEventListener("error", () => this.tell("lost"));
    this.source.addEventListener("part", (event) => {
      this.part.dataset.version = event.lastEventId;
      this.trouble("");
      replace(this.part, JSON.parse(event.data).html);
    });
    this.source.addEventListener("trouble", (event) => this.trouble(JSON.parse(event.data).message));
    this.source.addEventListener("well", () => this.trouble(""));
    this.source.addEventListener("over", () => {
      this.close();
      this.tell("over");
    });
    this.tell("on");
  }

  close() {
    if (this.source) this.source.close();
    this.source = null;
  }

  trouble(message) {
    const shown = document.getElementById("trouble");
    shown.textContent = message;
    shown.hidden = !message;
  }
}

// -- small things ---------------------------------------------------------------------------

function offerCopies(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = !navigator.clipboard;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
});

document.addEventListener("change", (event) => {
  if (event.target.matches(".filters select")) event.target.form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key !== "/" || !search || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  search.select();
});

tellTimes(document);
offerCopies(document);
setInterval(() => tellTimes(document), 5000);
const part = document.getElementById("part");
const state = document.getElementById("live-state");
if (part && state && part.dataset.events) new Live(part, state);
