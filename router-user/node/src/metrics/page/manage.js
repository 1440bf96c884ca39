// What only those may do who have the token. It goes out in a header of these requests alone, and is kept for this tab.
const TOKEN = "stream-router-token";
const token = () => sessionStorage.getItem(TOKEN);
let flows = { peer: null, list: [], error: "" };

async function askWithToken(method, path, body) {
  const headers = { Authorization: `Bearer ${token()}` };
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, cache: "no-store", body: body && JSON.stringify(body), signal: AbortSignal.timeout(4 * TIMEOUT_MS) });
  const told = await answer.json();
  if (answer.status === 401) sessionStorage.removeItem(TOKEN);
  drawManage();
  if (!answer.ok) throw new Error(told.error || String(answer.status));
  return told;
}
function drawManage() {
  const has = token() !== null;
  show($("let-in"), !has); show($("managing"), has); show($("with-token"), has);
}
// What a reload has changed, a line for each.
function changes(reload) {
  const names = new Map(reload.peer_names.map((one) => [one.id, one.name])), called = (id) => names.get(id) || short(id);
  const peers = [["added", reload.peers_added], ["removed", reload.peers_removed], ["changed", reload.peers_changed]];
  const told = peers.flatMap(([what, ids]) => ids.map((id) => `Peer ${what}: ${called(id)}.`));
  if (reload.applied.length) told.push(`Applied: ${reload.applied.join(", ")}.`);
  if (reload.needs_restart.length) told.push(`Needs a restart: ${reload.needs_restart.join(", ")}.`);
  return [...told, ...reload.notes].join("\n") || "Nothing has changed.";
}
// Says in its place what came of a request.
async function say(place, request, done) {
  put(place, "");
  try { put(place, done(await request())); return true; } catch (error) { put(place, error.message); return false; }
}
const listed = (id) => { const texts = $(id).value.split(",").map((text) => text.trim()).filter((text) => text); return texts.length ? texts : undefined; };

$("show-manage").addEventListener("click", () => { put($("managed"), ""); drawManage(); $("manage").showModal(); });
$("let-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim()); $("token").value = "";
  // A token counts once the node has taken it.
  if (!await say($("managed"), () => askWithToken("GET", "v1/flows?limit=1"), () => "The node takes the token.")) { sessionStorage.removeItem(TOKEN); drawManage(); }
});
$("add-peer").addEventListener("submit", (event) => {
  event.preventDefault();
  const who = $("new-peer").value.trim(), peer = { [who.startsWith("sr") ? "invite" : "id"]: who, name: $("new-name").value.trim() || undefined, allowed_ips: listed("new-allowed"), addresses: listed("new-addresses") };
  say($("managed"), () => askWithToken("POST", "v1/peers", peer), (reload) => { $("add-peer").reset(); return changes(reload); });
});
$("reload").addEventListener("click", () => say($("managed"), () => askWithToken("POST", "v1/reload"), changes));
$("forget").addEventListener("click", () => { sessionStorage.removeItem(TOKEN); put($("managed"), ""); drawManage(); });
// The first click asks whether it is meant.
function calm() { delete $("remove").dataset.peer; put($("remove"), "Remove this peer"); put($("removed"), ""); }
$("remove").addEventListener("click", () => {
  const button = $("remove"), peer = opened;
  if (button.dataset.peer !== peer) { button.dataset.peer = peer; put(button, "Remove it for good"); put($("removed"), "Its section goes from the configuration, and its connections end."); return; }
  // The node has not had one that is disabled, so nothing changes for it.
  const told = isAsleep(peer) ? () => "Its section is removed." : changes;
  calm(); say($("removed"), () => askWithToken("DELETE", `v1/peers/${encodeURIComponent(peer)}`), told);
});
$("detail").addEventListener("close", calm);

const isAsleep = (id) => seen.peers.some((peer) => peer.id === id && peer.state === "disabled");
async function pollFlows() {
  if (token() === null || !$("detail").open) return;
  const peer = opened;
  if (isAsleep(peer)) { flows = { peer, list: [], error: "" }; return; }
  try { flows = { peer, list: (await askWithToken("GET", `v1/flows?limit=20&peer=${encodeURIComponent(peer)}`)).flows, error: "" }; } catch (error) { flows = { peer, list: [], error: error.message }; }
}
function drawFlows() {
  const list = flows.peer === opened ? flows.list : [];
  const end = (address, port) => port === 0 ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  fill("detail-flows", list.map((one) => ({ cells: [{ text: end(one.source, one.source_port), kind: "break mono" }, { text: end(one.destination, one.destination_port), kind: "break mono" }, one.protocol, bytes(one.bytes), span(one.idle_seconds)] })));
  put($("no-detail-flows"), flows.error || "No live flow."); show($("no-detail-flows"), !list.length);
}
drawManage();
