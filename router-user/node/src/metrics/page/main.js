// What has happened, the latest first.
const EVENTS = { up: ["node is up", "good"], peer_up: ["connected", "good"], peer_down: ["lost", "bad"], reload: ["reloaded", ""], reload_refused: ["reload refused", "bad"], put_back: ["put back", "warn"] };
let allEvents = false, happened = [];
function drawEvents() {
  const time = (seconds) => new Date(seconds * 1000), today = new Date().toDateString();
  fill("log", [...happened].reverse().slice(0, allEvents ? happened.length : FEW / 2).map((one) => {
    const at = time(one.unix_seconds), [word, kind] = EVENTS[one.kind] || [one.kind, ""];
    const about = one.peer ? one.peer_name || short(one.peer) : "–";
    return { cells: [{ text: at.toDateString() === today ? at.toLocaleTimeString("en-GB") : `${at.toLocaleDateString("en-CA").replaceAll("-", "\u2011")} ${at.toLocaleTimeString("en-GB")}`, title: at.toISOString(), kind: "when" },
      state(word, kind), lines([[about, one.peer && !one.peer_name ? "mono" : ""], [one.detail || "", "small narrow"]], "break", one.peer || ""), { text: one.detail || "–", kind: "text" }] };
  }));
  put($("n-log"), happened.length > FEW / 2 && !allEvents ? `the last ${FEW / 2} of ${happened.length}` : "");
  show($("more-log"), happened.length > FEW / 2); put($("more-log"), allEvents ? `Show ${FEW / 2} only` : `Show all ${happened.length}`); $("more-log").setAttribute("aria-expanded", String(allEvents));
}

// The code is dark on light for readers that take no other, in both colour schemes.
function drawInvite({ invite, problem, addresses, allowed_ips: nets, qr }) {
  show($("invite-there"), invite !== null); show($("invite-problem"), invite === null); put($("invite-problem"), problem || "");
  if (invite === null) return;
  put($("invite-text"), invite); copies($("invite-copy"), [["the invite", "", invite]]);
  put($("invite-holds"), `It says: ${addresses.length ? `dialled at ${addresses.join(", ")}` : "it dials the others"}; allowed IPs ${nets.join(", ")}.`);
  show($("invite-qr"), qr !== null);
  if (qr === null) return;
  $("invite-qr").setAttribute("viewBox", `-4 -4 ${qr.size + 8} ${qr.size + 8}`);
  $("invite-qr").replaceChildren(svg("path", { d: qr.path }));
}

async function ask(path, signal) {
  const answer = await fetch(path, { signal, cache: "no-store" });
  if (!answer.ok && path !== "health") throw new Error(`${path}: ${(await answer.json()).error || answer.status}`);
  return answer.json();
}
const sum = (list, key) => list.reduce((total, one) => total + one[key], 0);
// What a counter gained per second; one that began anew gained nothing yet.
function rate(now, old, seconds) { return old === undefined || now < old ? 0 : (now - old) / seconds; }

// The title and the icon tell the state where only the tab is seen.
function tell(word, kind, title) {
  put($("health-text"), word); $("health").className = `pill ${kind}`;
  const text = ownName ? `${title} - ${ownName}` : "Stream Router", colour = { good: "#16865d", warn: "#d98a00", bad: "#c93434" }[kind];
  if (document.title !== text) document.title = text;
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="${colour}"/><path d="M3 6h7l-2-2M13 10H6l2 2" fill="none" stroke="white" stroke-width="1.6"/></svg>`;
  const address = `data:image/svg+xml,${encodeURIComponent(icon)}`;
  if ($("icon").getAttribute("href") !== address) $("icon").setAttribute("href", address);
}

function update(status, peers, disabled, workers, streams, counters, noted, healthNow) {
  const time = status.uptime_seconds;
  if (before && (time <= before.time || status.peer_id !== before.peerId)) { history = []; before = null; sparks.clear(); }
  const seconds = before ? time - before.time : 1, old = before ? before.values : new Map(), values = new Map();
  const gained = (key, value) => { values.set(key, value); return rate(value, old.get(key), seconds); };
  const drops = counters.filter((one) => one.kind === "drop"), events = counters.filter((one) => one.kind !== "drop");
  const rates = new Map(counters.map((one) => [one.name, gained(`counter ${one.name}`, one.value)]));
  const point = { time, tx: 0, rx: 0, txFrames: 0, rxFrames: 0, drops: drops.reduce((total, one) => total + rates.get(one.name), 0) };
  seen = { peers: [...peers, ...disabled.map(asleep)], rates: new Map(disabled.map((peer) => [peer.id, { tx: 0, rx: 0, past: { tx: [], rx: [] } }])), streams: streams.map((one) => ({ ...one, rate: gained(`stream ${one.peer} ${one.index}`, one.frames) })) };
  for (const peer of peers) {
    const tx = gained(`tx ${peer.id}`, peer.tx_bytes) * 8, rx = gained(`rx ${peer.id}`, peer.rx_bytes) * 8, kept = sparks.get(peer.id) || { tx: [], rx: [] };
    point.tx += tx; point.rx += rx;
    point.txFrames += gained(`tf ${peer.id}`, peer.tx_frames); point.rxFrames += gained(`rf ${peer.id}`, peer.rx_frames);
    const past = before ? { tx: [...kept.tx.slice(1 - SPARK), tx], rx: [...kept.rx.slice(1 - SPARK), rx] } : kept;
    sparks.set(peer.id, past); seen.rates.set(peer.id, { tx, rx, past });
  }
  for (const id of sparks.keys()) if (!seen.rates.has(id)) sparks.delete(id);
  const workerRows = workers.map((one) => ({ dim: one.state !== "active", cells: [{ text: `${one.id}${one.state === "active" ? "" : " retired"}` }, bar(one.fill), percent(one.fill), each(gained(`worker ${one.id}`, one.packets)), one.flows, { text: one.thread, kind: "mono" }] }));
  const busy = [...seen.streams].sort((a, b) => b.queued_bytes - a.queued_bytes || b.rate - a.rate || b.refused + b.dropped - a.refused - a.dropped).slice(0, FEW / 2);
  const reasons = (list) => list.filter((one) => one.value > 0).map((one) => ({ cells: [lines([[one.name, "mono"], [one.meaning, "small narrow"]], "break"), { text: each(rates.get(one.name)), kind: one.kind === "drop" && rates.get(one.name) > 0 ? "drop" : "" }, one.value.toLocaleString("en"), { text: one.meaning, kind: "text" }, one.origin] }));

  const first = !before;
  before = { time, values, peerId: status.peer_id };
  if (!first) history.push(point);
  if (history.length > KEPT) history.splice(0, history.length - KEPT);

  happened = noted; drawPeers(); drawDetail(); drawEvents(); fill("workers", workerRows);
  fill("streams", busy.map((one) => ({ dim: !one.open, cells: [called(one.peer_name, one.peer), streamName(one), ...loads(one)] })));
  put($("n-streams"), streams.length > FEW / 2 ? `the fullest ${FEW / 2} of ${streams.length}` : "");
  fill("drops", reasons(drops)); fill("events", reasons(events));
  fill("host", status.host.things.map((thing) => ({ cells: [thing.kind, lines([[thing.name || "–", "mono"], [thing.detail || "", "small narrow"]], "break"), state(thing.state, { ok: "good", wrong: "warn" }[thing.state] || "bad"), { text: thing.detail || "", kind: "text" }] })));
  put($("host-look"), status.host.error || `Looked at ${status.host.age_seconds.toFixed(1)} s ago; ${status.host.put_back} changes by others put back.`);
  const ports = status.port_mapping, forwards = ports.mapped.map((one) => `${one.address} by ${one.protocol}`).join(", ");
  show($("ports"), ports.state !== "off");
  put($("ports"), ports.state === "off" ? "" : `Ports that ${ports.gateway || "a router"} forwards: ${forwards || ports.state.replace("_", " ")}${ports.detail ? ` (${ports.detail})` : ""}.`);
  show($("no-streams"), !streams.length); show($("no-drops"), !sum(drops, "value"));
  ownName = status.name || status.device.name;
  put($("own-name"), ownName); put($("own-device"), `device ${status.device.name}`); $("own-device").title = status.listen.join("\n");
  copies($("own-addresses"), status.device.addresses.map((net) => [`VPN address ${net.split("/")[0]}`, net.split("/")[0]]));
  copies($("own-id"), [["the node's id", short(status.peer_id), status.peer_id]]);
  put($("about"), `Stream Router ${status.version}, up for ${span(time)}, Linux ${status.kernel.release}`);
  put($("tile-tx"), bits(point.tx)); put($("more-tx"), `${bytes(sum(peers, "tx_bytes"))} in all`);
  put($("tile-rx"), bits(point.rx)); put($("more-rx"), `${bytes(sum(peers, "rx_bytes"))} in all`);
  put($("tile-peers"), `${status.connected_peers} of ${status.configured_peers}`);
  const rtts = peers.map((peer) => peer.rtt_ms).filter((rtt) => rtt !== null);
  put($("more-peers"), [rtts.length && `slowest ${milliseconds(Math.max(...rtts))}`, disabled.length && `${disabled.length} disabled`].filter(Boolean).join(", "));
  put($("tile-flows"), sum(workers, "flows").toLocaleString("en")); put($("more-flows"), `on ${status.workers} workers`);
  const fullest = workers.reduce((best, one) => one.fill > best.fill ? one : best, { fill: 0, id: null });
  put($("tile-fill"), percent(fullest.fill)); put($("more-fill"), fullest.id === null ? "all are empty" : `worker ${fullest.id}`);
  put($("tile-drops"), each(point.drops)); put($("more-drops"), `${count(sum(drops, "value"))} in all`);
  $("tile-drops").className = point.drops > 0 ? "value drop" : "value";
  const [word, kind] = { ok: ["up", "good"], degraded: ["degraded", "warn"] }[healthNow.status] || ["failing", "bad"];
  tell(word, kind, kind === "bad" ? word : `${status.connected_peers} of ${status.configured_peers}`);
  const wrong = healthNow.checks.filter((check) => check.status !== "ok").map((check) => `${check.name}: ${check.detail}`);
  show($("trouble"), wrong.length > 0); put($("trouble"), wrong.join("; ")); $("trouble").className = kind;
  PLOTS.forEach(plot);
}

// What the node has kept from before the page was opened.
function remember(samples) {
  history = samples.slice(1).map((now, i) => {
    const old = samples[i], seconds = now.uptime_seconds - old.uptime_seconds, gained = (key) => rate(now[key], old[key], seconds);
    return { time: now.uptime_seconds, tx: gained("tx_bytes") * 8, rx: gained("rx_bytes") * 8, txFrames: gained("tx_frames"), rxFrames: gained("rx_frames"), drops: gained("drops") };
  });
}

async function poll() {
  if (!paused) {
    const limit = new AbortController(), timer = setTimeout(() => limit.abort(), TIMEOUT_MS);
    try {
      await pollFlows();
      const kept = before ? null : await ask("v1/history", limit.signal);
      const [status, { peers, disabled }, { workers }, { streams }, { counters }, { events: noted }, healthNow] = await Promise.all(PATHS.map((path) => ask(path, limit.signal)));
      update(status, peers, disabled, workers, streams, counters, noted, healthNow);
      if (kept) { remember(kept.samples); PLOTS.forEach(plot); }
      answered = new Date(); document.body.classList.remove("stale");
    } catch (error) {
      document.body.classList.add("stale");
      tell("no answer", "bad", "no answer");
      show($("trouble"), true); $("trouble").className = "bad";
      put($("trouble"), `The node does not answer${answered ? ` since ${answered.toLocaleTimeString()}` : ""}: ${error.message}`);
    }
    clearTimeout(timer);
  }
  setTimeout(poll, INTERVAL_MS);
}
$("pause").addEventListener("click", () => { paused = !paused; put($("pause"), paused ? "Go on" : "Pause"); $("pause").setAttribute("aria-pressed", String(paused)); });
$("window").addEventListener("change", () => PLOTS.forEach(plot));
$("more-log").addEventListener("click", () => { allEvents = !allEvents; drawEvents(); });
$("search").addEventListener("input", () => drawPeers(true));
$("more-rows").addEventListener("click", () => { all = !all; drawPeers(true); });
$("peers").tHead.addEventListener("click", (event) => {
  const head = event.target.closest("th");
  if (!head) return;
  const by = head.dataset.sort, again = sorted && sorted.by === by;
  sorted = { by, down: again ? !sorted.down : NUMBERS.includes(by) };
  for (const other of $("peers").tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
  drawPeers(true);
});
// The name's button takes Enter and Space; for a pointer, the whole row is the button.
$("peers").tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (!row || !event.target.closest("button") && getSelection().toString()) return;
  opened = order[row.sectionRowIndex];
  $("detail").showModal(); drawDetail();
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
$("show-invite").addEventListener("click", async () => {
  let told;
  try { told = await ask("v1/invite", AbortSignal.timeout(TIMEOUT_MS)); } catch (error) { told = { problem: error.message, invite: null, qr: null }; }
  drawInvite(told); $("invite").showModal();
});
document.addEventListener("click", (event) => { const button = event.target.closest(".copy"); if (button) copy(button); });
poll();
