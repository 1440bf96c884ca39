// By what a column sorts. Numbers begin with the largest, and what is not known comes last in both directions.
const KEYS = {
  name: (peer) => peer.name, address: (peer) => inner(peer)[0], path: (peer) => `${peer.state} ${peer.transport || ""} ${peer.address ? endpoint(peer.address) : ""}`,
  rtt: (peer) => peer.rtt_ms, tx: (peer) => peer.tx_bytes_per_second, rx: (peer) => peer.rx_bytes_per_second, handshake: (peer) => peer.handshake_age_seconds,
};
const NUMBERS = ["rtt", "tx", "rx", "handshake"], texts = new Intl.Collator("en", { numeric: true });
function compare(a, b) {
  const [one, other] = [a, b].map((peer) => KEYS[sorted.by](peer) ?? null);
  if (one === null || other === null) return (one === null) - (other === null);
  return (NUMBERS.includes(sorted.by) ? one - other : texts.compare(one, other)) * (sorted.down ? -1 : 1);
}
// Rows do not move under the pointer, the keyboard's focus or an open dialog, unless the reader asked for another order.
function drawPeers(anew = false) {
  const body = $("peers").tBodies[0], wanted = $("search").value.trim().toLowerCase();
  const tells = (peer) => [peer.name, peer.comment, peer.id, peer.state, peer.transport, peer.address, fault(peer), ...peer.allowed_ips].join("\n").toLowerCase();
  const found = seen.peers.filter((peer) => !wanted || tells(peer).includes(wanted));
  if (!anew && (body.matches(":hover, :focus-within") || $("detail").open)) {
    const places = new Map(order.map((id, i) => [id, i]));
    found.sort((a, b) => (places.get(a.id) ?? order.length) - (places.get(b.id) ?? order.length));
  } else if (sorted) found.sort(compare);
  order = found.map((peer) => peer.id);
  fill("peers", found.slice(0, all ? found.length : FEW).map((peer) => {
    const own = inner(peer), path = peer.address && peer.state === "connected" ? [[endpoint(peer.address), "mono"], [how(peer), "small"]] : [[peer.state, ""], [fault(peer), "small clamp"]];
    const rates = seen.rates.get(peer.id);
    return { dim: peer.state === "disabled", cells: [{ kind: "break who", title: peer.id, draw: (cell) => {
      if (!cell.firstElementChild) {
        const button = made("button", ""), outer = made("span", "called");
        button.type = "button"; button.setAttribute("aria-haspopup", "dialog");
        outer.append(made("span", ""), button, made("span", "said")); cell.append(outer, made("span", "narrow"));
      }
      const [dot, button, word] = cell.firstElementChild.children;
      dot.className = `dot ${health(peer)}`; button.className = peer.name ? "peer" : "peer mono";
      put(button, peer.name || short(peer.id)); put(word, peer.state);
      stack(cell.lastElementChild, [...own.slice(0, 1).map((text) => [text, "mono"]), ...path.map(([text], i) => [text, i ? "small clamp" : "small"])]);
    } }, lines(own.slice(0, 2).map((text, i) => [text, i ? "mono small" : "mono"]), "break address", peer.allowed_ips.slice(0, 20).join("\n")),
    lines(path, "break path", peer.address || ""), milliseconds(peer.rtt_ms), rated(peer.tx_bytes_per_second, rates.past.tx, rates.tx, "tx"), rated(peer.rx_bytes_per_second, rates.past.rx, rates.rx, "rx"), ago(peer.handshake_age_seconds)] };
  }));
  put($("n-peers"), wanted ? `${found.length} of ${seen.peers.length}` : "");
  put($("no-peers"), seen.peers.length ? "No peer is like this." : "No peer is configured."); show($("no-peers"), !found.length);
  show($("more-rows"), found.length > FEW); put($("more-rows"), all ? `Show ${FEW} only` : `Show all ${found.length}`); $("more-rows").setAttribute("aria-expanded", String(all));
}
function drawDetail() {
  const peer = seen.peers.find((one) => one.id === opened);
  if (!$("detail").open) return;
  if (!peer) { put($("detail-state"), "no longer configured"); $("detail-health").className = "pill bad"; return; }
  const rates = seen.rates.get(peer.id), streams = seen.streams.filter((one) => one.peer === peer.id);
  const traffic = (now, minute, whole, frames) => `${bits(now)} now, ${mean(minute)} in the last minute, ${bytes(whole)} in ${count(frames)} frames in all`;
  put($("detail-name"), peer.name || short(peer.id)); put($("detail-state"), peer.state); $("detail-health").className = `pill ${health(peer)}`;
  copies($("detail-addresses"), inner(peer).map((text) => [`VPN address ${text}`, text]));
  copies($("detail-allowed"), peer.allowed_ips.length ? [["allowed IPs", peer.allowed_ips.join(", ")]] : []);
  put($("detail-path"), peer.address ? `${endpoint(peer.address)}, ${how(peer)}; connections: ${peer.connections}, open streams: ${peer.streams}${byUplinks(peer) && `; uplinks: ${byUplinks(peer)}`}` : "–");
  copies($("detail-multiaddress"), peer.address ? [["multiaddress", peer.address]] : []);
  put($("detail-comment"), peer.comment || "–");
  copies($("detail-id"), [["peer id", peer.id]]);
  put($("detail-rtt"), milliseconds(peer.rtt_ms)); put($("detail-handshake"), ago(peer.handshake_age_seconds));
  put($("detail-tx"), traffic(rates.tx, peer.tx_bytes_per_second, peer.tx_bytes, peer.tx_frames) + (peer.rate_bytes_per_second ? `; limit ${bits(peer.rate_bytes_per_second * 8)}` : ""));
  put($("detail-rx"), traffic(rates.rx, peer.rx_bytes_per_second, peer.rx_bytes, peer.rx_frames));
  put($("detail-error"), (peer.refuses ? "It does not know this node. " : "") + (peer.last_dial_error || (peer.refuses ? "" : "none")));
  const origins = { configured: "the configuration", mdns: "the local network", dht: "its announcement" };
  fill("detail-dialled", peer.addresses.map((one) => ({ cells: [lines([[one.address, "mono"], [`from ${origins[one.origin] || one.origin}`, "small"]], "break", one.address),
    { text: one.last_dial_error || (sameAddress(one.address, peer.address) ? "connected" : "–"), kind: "text" }] })));
  show($("no-detail-dialled"), !peer.addresses.length);
  drawFlows();
  fill("detail-streams", streams.map((one) => ({ dim: !one.open, cells: [streamName(one), one.transport || "–", ...loads(one)] }))); show($("no-detail-streams"), !streams.length);
}
// The address of a connection may end with the id of its peer.
const sameAddress = (address, connected) => connected !== null && connected.split("/p2p/")[0] === address;
const streamName = (one) => ({ text: `${one.index}${one.open ? "" : " closed"}${one.state === "active" ? "" : " retired"}`, kind: "break" });
const loads = (one) => [each(one.rate), { text: bytes(one.queued_bytes), kind: one.pressed ? "drop" : "", title: one.pressed ? "Senders are held back" : "" }, count(one.refused), count(one.dropped), count(one.marked)];
