// Names of the page stay apart from those of the browser, such as history and top.
const INTERVAL_MS = 1000, TIMEOUT_MS = 5000, COPIED_MS = 1500, KEPT = 900, SPARK = 60, FEW = 20;
// What is kept is asked for once, and everything else again and again.
const PATHS = ["v1/status", "v1/peers", "v1/workers", "v1/streams", "v1/counters", "v1/events", "health"];
const $ = (id) => document.getElementById(id);
let history = [], before = null, paused = false, answered = null, ownName = "";
// What is shown of the peers: the last answer with rates, the order of rows, and what the reader has chosen.
let seen = { peers: [], streams: [], rates: new Map() }, order = [], sorted = null, all = false, opened = null;
const sparks = new Map();

// Whatever the node says goes into the page as text, never as markup.
function put(element, text) { if (element.textContent !== text) element.textContent = text; }
function show(element, wanted) { element.hidden = !wanted; }
function made(name, kind, text = "") { const one = document.createElement(name); one.className = kind; one.textContent = text; return one; }

const scaled = (value, base, units) => {
  let unit = 0;
  while (Math.abs(value) >= base && unit < units.length - 1) { value /= base; unit += 1; }
  const digits = unit === 0 ? (value >= 10 || Number.isInteger(value) ? 0 : 1) : value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`.trim();
};
const bits = (n) => scaled(n, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
const count = (n) => scaled(n, 1000, ["", "k", "M", "G", "T"]);
const each = (n) => `${count(n)}/s`;
const percent = (share) => `${(share * 100).toFixed(share > 0 && share < .0995 ? 1 : 0)} %`;
const milliseconds = (n) => n === null ? "–" : `${n < 10 ? n.toFixed(2) : n.toFixed(0)} ms`;
const short = (id) => `…${id.slice(-8)}`;
function span(seconds) {
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}
const ago = (seconds) => seconds === null ? "–" : `${span(seconds).split(" ", 2).join(" ")} ago`;
const mean = (rate) => rate === null || rate === undefined ? "–" : bits(rate * 8);

// The peer's own addresses are its networks of one address; one that has none is known by its first network.
function inner(peer) {
  const own = peer.allowed_ips.filter((net) => net.endsWith(net.includes(":") ? "/128" : "/32"));
  return own.length ? own.map((net) => net.split("/")[0]) : peer.allowed_ips.slice(0, 1);
}
function endpoint(multiaddress) {
  const [, kind, host, , port] = multiaddress.split("/");
  if (!["ip4", "ip6", "dns", "dns4", "dns6"].includes(kind) || !port) return multiaddress.split("/p2p/")[0];
  return `${kind === "ip6" ? `[${host}]` : host}:${port}`;
}
// One that is disabled looks like the others, without anything that needs a connection.
const asleep = (peer) => ({
  ...peer, state: "disabled", address: null, transport: null, direction: null, rtt_ms: null, handshake_age_seconds: null, connections: 0, links: [], streams: 0,
  tx_frames: 0, tx_bytes: 0, rx_frames: 0, rx_bytes: 0, tx_bytes_per_second: null, rx_bytes_per_second: null, last_dial_error: null, refuses: false,
  addresses: peer.addresses.map((address) => ({ address, origin: "configured", last_dial_error: null })),
});
const how = (peer) => `${peer.transport || "–"}, ${peer.direction === "inbound" ? "it dialled" : "dialled"}`;
const lost = (loss) => loss === null || loss === undefined ? "" : ` ${(100 * loss).toFixed(1)} % lost`;
const byUplinks = (peer) => (peer.links || []).filter((one) => one.uplink).map((one) =>
  `${one.uplink}${one.metered ? " (metered)" : ""} ${one.answers ? one.leaving ? "left" : `${milliseconds(one.rtt_ms)}${lost(one.loss)}` : "silent"}`).join(", ");
const fault = (peer) => peer.refuses ? "it does not know this node" : peer.last_dial_error || "";
const health = (peer) => ({ connected: "good", idle: "", disabled: "", connecting: "warn" }[peer.state] ?? "bad");

// Rows and cells stay and only their content changes, so that what is selected, hovered or focused stays, too.
function fill(id, rows) {
  const body = $(id).tBodies[0], heads = $(id).tHead.rows[0].cells;
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, i) => {
    const line = body.rows[i] || body.insertRow();
    line.className = row.dim ? "dim" : "";
    row.cells.forEach((cell, j) => {
      const at = line.cells[j] || line.insertCell();
      const one = cell !== null && typeof cell === "object" ? cell : { text: String(cell) };
      at.className = [heads[j].className, one.kind || ""].join(" ").trim();
      at.title = one.title || "";
      if (one.draw) one.draw(at); else put(at, one.text);
    });
  });
}
function child(parent, name, kind) {
  if (!parent.firstElementChild) parent.replaceChildren(made(name, kind));
  return parent.firstElementChild;
}
// One line below the other.
function stack(cell, parts) {
  while (cell.children.length > parts.length) cell.lastElementChild.remove();
  parts.forEach(([text, kind], i) => {
    const at = cell.children[i] || cell.appendChild(made("span", ""));
    at.className = `line ${kind}`; put(at, text);
  });
}
const lines = (parts, kind, title) => ({ kind, title, draw: (cell) => stack(cell, parts) });
const called = (name, id) => ({ text: name || short(id), kind: `break who ${name ? "" : "mono"}`, title: id });
const bar = (share) => ({ kind: "fill", title: percent(share), draw: (cell) => {
  const inside = child(child(cell, "div", "bar"), "i", "");
  inside.style.width = `${Math.max(share * 100, share > 0 ? 1 : 0)}%`;
  inside.className = share > .9 ? "bad" : share > .75 ? "warn" : "";
} });
const state = (text, kind) => ({ title: text, draw: (cell) => {
  const outer = child(cell, "span", "state");
  child(outer, "span", "dot").className = `dot ${kind}`;
  if (outer.childNodes.length < 2) outer.append(made("span", ""));
  put(outer.lastChild, text);
} });
// The mean of the last minute, and what it is the mean of.
const rated = (value, values, now, kind) => ({ title: `${bits(now)} now, at most ${bits(Math.max(now, ...values))}`, draw: (cell) => {
  const outer = child(cell, "span", "rate");
  if (!outer.firstElementChild) {
    const drawn = svg("svg", { class: "spark mid", viewBox: `0 0 ${SPARK - 1} 22`, preserveAspectRatio: "none", "aria-hidden": "true" });
    drawn.append(svg("path", { class: `area ${kind}-area` }), svg("path", { class: `curve ${kind}-line`, "vector-effect": "non-scaling-stroke" }));
    outer.append(made("span", ""), drawn);
  }
  put(outer.firstElementChild, mean(value));
  const most = Math.max(...values, 1), first = SPARK - values.length, [area, line] = outer.lastElementChild.children;
  const points = values.map((one, i) => `${first + i} ${(20.5 - one / most * 19).toFixed(1)}`).join("L");
  line.setAttribute("d", values.length > 1 ? `M${points}` : ""); area.setAttribute("d", values.length > 1 ? `M${first} 22L${points}V22Z` : "");
} });
// Texts with a button each that copies them; buttons stay while the texts do.
function copies(element, texts) {
  const wanted = JSON.stringify(texts);
  if (element.dataset.texts === wanted) return;
  element.dataset.texts = wanted;
  element.replaceChildren(...texts.map(([what, text, whole = text]) => {
    const one = made("span", ""), button = made("button", "copy", "Copy");
    button.type = "button"; button.dataset.copy = whole; button.setAttribute("aria-label", `Copy ${what}`);
    one.append(made("span", "", text), button); one.title = whole;
    return one;
  }));
  if (!texts.length) put(element, "–");
}
async function copy(button) {
  let done = true;
  try {
    // A browser has a clipboard for pages of this host and of https only.
    if (navigator.clipboard) await navigator.clipboard.writeText(button.dataset.copy);
    else {
      const held = made("textarea", "said"); held.value = button.dataset.copy;
      button.after(held); held.select(); done = document.execCommand("copy"); held.remove(); button.focus();
    }
  } catch { done = false; }
  const heard = button.closest("header, dialog").querySelector(".heard"), word = done ? "Copied" : "Not copied";
  put(button, word); put(heard, word);
  setTimeout(() => { put(button, "Copy"); put(heard, ""); }, COPIED_MS);
}

function svg(name, attributes) {
  const one = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}
