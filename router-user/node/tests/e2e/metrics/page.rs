//! The status page in a browser.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{INSIDE, LIMIT, TOKEN, get, health, send_datagrams};
use crate::support::NODE;
use crate::support::browser::Browser;
use xtask::lab::process::until;
use xtask::lab::{Pair, ScratchDir};

/// A peer that is in no configuration at first.
const NEW: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// In this order: all is well, the peer is gone, the device is down, the node is gone.
pub(super) fn page(pair: &mut Pair) -> Result<()> {
    let (own, peer) = (pair.a.node.peer_id().to_owned(), pair.b.node.peer_id().to_owned());
    let directory = ScratchDir::unique("browser")?;
    let mut browser = Browser::open(&pair.a.host, directory.path(), &format!("http://{INSIDE}/"))?;
    let n_points = |plot: &str| {
        format!(
            "[...document.querySelectorAll('#plot-{plot} .curve')].every((line) => line.dataset.points >= 3)"
        )
    };

    for plot in ["throughput", "frames", "drops"] {
        browser.wait_for(&n_points(plot))?;
    }
    browser.wait_for("document.getElementById('health-text').textContent === 'up'")?;

    let mut text = |expression: &str| {
        Ok::<_, anyhow::Error>(
            browser
                .evaluate(expression)?
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    assert_eq!(
        text("document.getElementById('tile-peers').textContent")?,
        "1 of 1"
    );
    assert_eq!(text("document.querySelector('#own-id .copy').dataset.copy")?, own);
    let addresses = text("document.getElementById('own-addresses').innerText")?;
    assert!(addresses.contains(&pair.a.v4.to_string()), "{addresses}");
    assert_eq!(
        text("document.title")?,
        format!("1 of 1 - {}", pair.a.config.device)
    );
    let icon = text("document.getElementById('icon').href")?;
    assert!(icon.starts_with("data:image/svg+xml,"), "{icon}");
    assert_eq!(text("document.querySelector('#peers td').title")?, peer);
    let row = text("document.querySelector('#peers tbody tr').innerText")?;
    for told in [
        &peer[peer.len() - 8..],
        &pair.b.v4.to_string(),
        "192.0.2.2:",
        " ms",
    ] {
        assert!(row.contains(told), "no {told}: {row}");
    }
    // The path is the address and the port; the rest is in the detail.
    assert!(!row.contains("/ip4/"), "{row}");
    assert!(!text("document.getElementById('more-tx').textContent")?.starts_with("0 B"));
    let path = text("document.querySelector('#plot-throughput .curve').getAttribute('d')")?;
    assert!(path.starts_with('M') && !path.contains("NaN"), "{path}");
    let n_rows = |table: &str| format!("document.querySelectorAll('#{table} tbody tr').length");
    let n_workers = pair.a.node.status()?.workers;
    assert_eq!(browser.evaluate(&n_rows("workers"))?, n_workers);
    assert!(browser.evaluate(&n_rows("streams"))?.as_u64() >= Some(1));
    assert!(browser.evaluate(&n_rows("events"))?.as_u64() >= Some(1));
    has_noted(&mut browser, "connected", &peer)?;
    looks(&mut browser)?;
    is_spoken(&mut browser)?;
    controls(&mut browser)?;
    detail(&mut browser, &peer)?;
    invite(&mut browser, pair)?;
    manage(&mut browser, pair)?;
    many_peers(&mut browser)?;
    nothing_becomes_markup(&mut browser)?;
    assert_eq!(browser.problems(), [] as [Value; 0]);

    pair.b.node.stop(Signal::SIGTERM)?;
    browser.wait_for("document.getElementById('health-text').textContent === 'degraded'")?;
    browser.wait_for("document.querySelector('#peers tbody tr').innerText.includes('connecting')")?;
    browser.wait_for("document.title.startsWith('0 of 1 - ')")?;
    has_noted(&mut browser, "lost", &peer)?;
    let changed = browser.evaluate("document.getElementById('icon').href")?;
    assert_ne!(changed, icon);
    assert_eq!(
        health(pair, "peers")?,
        (200, "degraded".to_owned(), "degraded".to_owned())
    );

    // The node brings it up again, until it gives in.
    until("the device stays down", LIMIT, || {
        pair.a.host.ip(&["link", "set", &pair.a.config.device, "down"])?;
        // Of what leads by the device it gives in too.
        let is_it = |line: &str| line.contains("time and again") && line.contains("the state of the device");
        Ok(pair.a.node.log()?.lines().any(is_it).then_some(()))
    })?;
    browser.wait_for("document.getElementById('trouble').textContent.includes('is down')")?;
    browser.wait_for("document.getElementById('log').innerText.includes('put back')")?;
    assert_eq!(
        health(pair, "device")?,
        (503, "failing".to_owned(), "failing".to_owned())
    );

    pair.a.node.stop(Signal::SIGTERM)?;
    browser.wait_for("document.getElementById('health-text').textContent === 'no answer'")?;
    browser.wait_for("document.title.startsWith('no answer - ')")?;
    assert!(get(&pair.a.host, INSIDE, INSIDE, "/health").is_err());
    Ok(())
}

/// The policy lets the page's own style work, and nothing is cut, in every window and both colour schemes.
fn looks(browser: &mut Browser) -> Result<()> {
    // What is not shown has no size that could be compared.
    browser.evaluate("document.getElementById('more-events').open = true; 0")?;
    let ground = "getComputedStyle(document.body).backgroundColor";
    for (scheme, expected) in [("light", "rgb(244, 246, 248)"), ("dark", "rgb(13, 17, 23)")] {
        for width in [390, 1280] {
            browser.show_as(width, scheme)?;
            assert_eq!(browser.evaluate(ground)?, expected, "{width}");
            fits(browser, width)?;
            browser.picture(&format!("page-{scheme}-{width}"))?;
        }
    }
    Ok(())
}

/// The latest event of this peer is this one, with the reason.
fn has_noted(browser: &mut Browser, what: &str, peer: &str) -> Result<()> {
    let end = &peer[peer.len() - 8..];
    browser.wait_for(&format!(
        "[...document.querySelectorAll('#log tbody tr')].filter(({{ cells }}) => cells[2].textContent.includes('{end}')).slice(0, 1) \
           .some(({{ cells }}) => cells[1].textContent === '{what}' && cells[3].textContent.length > 5)"
    ))
}

/// A screen reader has a name for every control, plot and table of peers, and says by what it is sorted.
fn is_spoken(browser: &mut Browser) -> Result<()> {
    let spoken = browser.spoken()?;
    let nameless: Vec<_> = spoken
        .iter()
        .filter(|(role, name)| {
            ["button", "searchbox", "combobox", "image", "link", "dialog"].contains(&role.as_str())
                && name.is_empty()
        })
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    for (role, name) in [
        ("heading", "Peers"),
        ("table", "Peers"),
        ("table", "Last events"),
        ("searchbox", "Find peers"),
        ("combobox", "Time shown"),
        ("columnheader", "Round trip"),
        ("image", "Throughput over time"),
        ("button", "Copy the node's id"),
    ] {
        let told = spoken
            .iter()
            .any(|other| (other.0.as_str(), other.1.as_str()) == (role, name));
        assert!(told, "no {role} {name}: {spoken:?}");
    }
    Ok(())
}

/// Neither the page nor one of its tables is wider than its place.
fn fits(browser: &mut Browser, width: u32) -> Result<()> {
    let cut = browser.evaluate(
        "[document.documentElement, ...document.querySelectorAll('.scroll')] \
           .filter((scroller) => scroller.scrollWidth > scroller.clientWidth) \
           .map((scroller) => `${scroller.firstElementChild.id} ${scroller.scrollWidth} > ${scroller.clientWidth}`)",
    )?;
    assert_eq!(cut, json!([]), "{width}");
    Ok(())
}

fn controls(browser: &mut Browser) -> Result<()> {
    let pause = "(() => { const button = document.getElementById('pause'); button.click(); return button.ariaPressed; })()";
    assert_eq!(browser.evaluate(pause)?, "true");
    assert_eq!(browser.evaluate(pause)?, "false");
    browser.evaluate(
        "(() => { const shown = document.getElementById('window'); shown.value = '60'; shown.dispatchEvent(new Event('change')); \
         const plot = document.getElementById('plot-throughput'), at = plot.getBoundingClientRect(); \
         plot.dispatchEvent(new PointerEvent('pointermove', { clientX: at.right - 20, clientY: at.top + 20 })); })()",
    )?;
    browser.wait_for(
        "document.querySelector('#plot-throughput .axis:last-of-type').textContent.endsWith(' s')",
    )?;
    browser.wait_for("document.querySelector('#plot-throughput .cursor') !== null")?;
    Ok(())
}

/// A peer opens by keyboard, says all that is known of it, and gives its id away whole.
fn detail(browser: &mut Browser, peer: &str) -> Result<()> {
    browser.evaluate(
        "navigator.clipboard.writeText = async (text) => { window.copied = text; }; \
         document.querySelector('#peers button.peer').focus(); 0",
    )?;
    browser.press("Enter", "\r")?;
    browser.wait_for("document.getElementById('detail').open")?;
    let text = browser.evaluate("document.getElementById('detail').innerText")?;
    let text = text.as_str().context("no text")?;
    for told in [
        peer,
        "/ip4/192.0.2.2/tcp/",
        "/32",
        "connected",
        " in the last minute",
        "configuration",
    ] {
        assert!(text.contains(told), "no {told}: {text}");
    }
    let streams = browser.evaluate("document.querySelectorAll('#detail-streams tbody tr').length")?;
    assert!(streams.as_u64() >= Some(1), "{streams}");
    browser.evaluate("document.querySelector('#detail-id .copy').click(); 0")?;
    browser.wait_for(&format!("window.copied === '{peer}'"))?;
    browser.wait_for("document.querySelector('#detail .heard').textContent === 'Copied'")?;
    for width in [390, 1280] {
        browser.show_as(width, "dark")?;
        fits(browser, width)?;
        browser.picture(&format!("detail-dark-{width}"))?;
    }
    browser.press("Escape", "")?;
    browser.wait_for("!document.getElementById('detail').open")?;
    // The reader goes on where the detail was opened.
    browser.wait_for("document.activeElement === document.querySelector('#peers button.peer')")?;
    browser.evaluate("document.activeElement.blur(); 0")?;
    Ok(())
}

/// The invite is the one that the command prints, as text and as a code, and is given away whole.
fn invite(browser: &mut Browser, pair: &Pair) -> Result<()> {
    let (_, told) = get(&pair.a.host, INSIDE, INSIDE, "/v1/invite")?;
    let told: Value = serde_json::from_str(&told)?;
    let own = told["invite"].as_str().context("no invite")?;
    let config = pair.a.node.config().display().to_string();
    let printed = pair
        .a
        .host
        .command(NODE)
        .args(["invite", "--config", &config, "--qr"])
        .output()?;
    assert_eq!(String::from_utf8(printed.stdout)?.trim(), own);
    let code = String::from_utf8(printed.stderr)?;
    assert!(code.contains("\u{1b}[30;107m    █▀▀▀▀▀█"), "{code}");

    browser.evaluate("document.getElementById('show-invite').click(); 0")?;
    browser.wait_for("document.getElementById('invite').open")?;
    let text = "document.getElementById('invite-text').textContent";
    assert_eq!(browser.evaluate(text)?, own);
    browser.evaluate("document.querySelector('#invite-copy .copy').click(); 0")?;
    browser.wait_for(&format!("window.copied === '{own}'"))?;
    let drawn = browser.evaluate("document.querySelector('#invite-qr path').getAttribute('d')")?;
    assert_eq!(drawn, told["qr"]["path"]);
    for width in [390, 1280] {
        browser.show_as(width, "dark")?;
        fits(browser, width)?;
        browser.picture(&format!("invite-dark-{width}"))?;
    }
    browser.press("Escape", "")?;
    browser.wait_for("!document.getElementById('invite').open")
}

/// With the token, and not without, the page adds and removes a peer in the files, reloads, and shows a peer's flows.
fn manage(browser: &mut Browser, pair: &Pair) -> Result<()> {
    let set = |id: &str, text: &str| format!("document.getElementById('{id}').value = '{text}'; 0");
    let press = |selector: &str| format!("document.querySelector('{selector}').click(); 0");
    let said =
        |id: &str, text: &str| format!("document.getElementById('{id}').textContent.includes('{text}')");
    let file = pair.a.node.config().with_extension("d").join("oslo.toml");

    browser.evaluate(&press("#show-manage"))?;
    browser.evaluate(&set("token", "0123456789abcdeF"))?;
    browser.evaluate(&press("#let-in button"))?;
    browser.wait_for(&said("managed", "the token is wrong"))?;
    assert_eq!(
        browser.evaluate("document.getElementById('managing').hidden")?,
        true
    );
    browser.evaluate(&set("token", TOKEN))?;
    browser.evaluate(&press("#let-in button"))?;
    browser.wait_for("!document.getElementById('managing').hidden")?;
    browser.wait_for(&said("managed", "takes the token"))?;
    assert_eq!(browser.evaluate("document.cookie + localStorage.length")?, "0");

    browser.evaluate(&set("new-peer", NEW))?;
    browser.evaluate(&set("new-name", "oslo"))?;
    browser.evaluate(&set("new-allowed", "10.42.0.999/32"))?;
    browser.evaluate(&press("#add-peer button"))?;
    browser.wait_for(&said("managed", "allowed_ips"))?;
    assert!(!file.exists());
    browser.evaluate(&set("new-allowed", "10.77.0.3/32, 10.78.0.0/16"))?;
    for width in [390, 1280] {
        browser.show_as(width, "light")?;
        fits(browser, width)?;
        browser.picture(&format!("manage-light-{width}"))?;
    }
    browser.evaluate(&press("#add-peer button"))?;
    browser.wait_for(&said("managed", "Peer added: oslo."))?;
    let written = fs::read_to_string(&file)?;
    assert!(
        written.contains("10.78.0.0/16") && written.contains(NEW),
        "{written}"
    );
    browser.evaluate(&press("#reload"))?;
    browser.wait_for(&said("managed", "Nothing has changed."))?;
    browser.press("Escape", "")?;
    browser.wait_for("document.querySelectorAll('#peers tbody tr').length === 2")?;

    send_datagrams(&pair.a, pair.b.v4)?;
    browser.evaluate(&press("#peers button.peer"))?;
    browser.wait_for("document.querySelectorAll('#detail-flows tbody tr').length >= 1")?;
    browser.wait_for(&said("detail-flows", &format!("{}:20001", pair.b.v4)))?;
    browser.press("Escape", "")?;

    let oslo =
        "[...document.querySelectorAll('#peers button.peer')].find((name) => name.textContent === 'oslo')";
    disabled(browser, pair, oslo)?;
    browser.evaluate(&press("#remove"))?;
    assert!(file.exists());
    browser.wait_for(&said("remove", "for good"))?;
    browser.evaluate(&press("#remove"))?;
    browser.wait_for(&said("removed", "Its section is removed."))?;
    assert!(!file.exists());
    browser.press("Escape", "")?;
    browser.wait_for("document.querySelectorAll('#peers tbody tr').length === 1")?;

    browser.evaluate(&press("#show-manage"))?;
    browser.evaluate(&press("#forget"))?;
    browser.wait_for("!document.getElementById('let-in').hidden && sessionStorage.length === 0")?;
    browser.press("Escape", "")?;
    browser.wait_for("!document.getElementById('manage').open")?;
    browser.forget_refusals();
    Ok(())
}

/// A peer that is disabled is a pale row, which counts nowhere; it is open afterwards, with its comment.
fn disabled(browser: &mut Browser, pair: &Pair, row: &str) -> Result<()> {
    let mut set = pair.a.host.command(NODE);
    set.args(["peer", "set", "oslo", "--enabled", "false", "--comment"]);
    set.args(["back in spring", "--config"]);
    let set = set.arg(pair.a.node.config()).output()?;
    assert!(set.status.success(), "{set:?}");
    browser.wait_for(&format!(
        "{row}.closest('tr').matches('.dim') && {row}.closest('tr').innerText.includes('disabled')"
    ))?;
    browser.wait_for("document.getElementById('tile-peers').textContent === '1 of 1'")?;
    browser.wait_for("document.getElementById('more-peers').textContent.endsWith('1 disabled')")?;
    browser.evaluate(&format!("{row}.click(); 0"))?;
    browser.wait_for("document.getElementById('detail-comment').textContent === 'back in spring'")?;
    browser.wait_for("document.getElementById('detail-state').textContent === 'disabled'")?;
    for width in [390, 1280] {
        browser.show_as(width, "light")?;
        fits(browser, width)?;
        browser.picture(&format!("disabled-light-{width}"))?;
    }
    Ok(())
}

/// Two hundred peers are shown a few at first, sorted by what the reader asks for, and found.
fn many_peers(browser: &mut Browser) -> Result<()> {
    answer_with(
        browser,
        "const [one] = told.peers; \
         told.peers = Array.from({ length: 200 }, (_, i) => ({ ...one, id: `${one.id}${i}`, name: `site-${(i * 7) % 200}`, \
           allowed_ips: [`10.9.0.${i}/32`], rtt_ms: i === 5 ? null : i }));",
    )?;
    let n_rows = "document.querySelectorAll('#peers tbody tr').length";
    let press = |id: &str| format!("document.querySelector('{id}').click(); 0");
    let first =
        |expected: &str| format!("document.querySelector('#peers button.peer').textContent === '{expected}'");
    browser.wait_for(&format!("{n_rows} === 20"))?;

    let sort = "th[data-sort=name] button";
    browser.evaluate(&press(sort))?;
    browser.wait_for(&first("site-0"))?;
    browser.evaluate(&press(sort))?;
    browser.wait_for(&first("site-199"))?;
    let sorted = "[...document.querySelectorAll('#peers th[aria-sort]')].map((head) => [head.dataset.sort, head.ariaSort])";
    assert_eq!(browser.evaluate(sorted)?, json!([["name", "descending"]]));
    browser.evaluate(&press("th[data-sort=rtt] button"))?;
    browser.wait_for(&first("site-193"))?;
    assert_eq!(browser.evaluate(sorted)?, json!([["rtt", "descending"]]));

    browser.evaluate(&press("#more-rows"))?;
    browser.wait_for(&format!("{n_rows} === 200"))?;
    // What is not known is last.
    browser
        .wait_for("[...document.querySelectorAll('#peers button.peer')].pop().textContent === 'site-35'")?;
    for width in [390, 1280] {
        browser.show_as(width, "light")?;
        fits(browser, width)?;
        browser.picture(&format!("many-light-{width}"))?;
        let tallest = "Math.max(...[...document.querySelectorAll('#peers button.peer')].map((name) => name.offsetHeight))";
        assert!(
            browser.evaluate(tallest)?.as_u64() < Some(30),
            "a short name is broken at {width}"
        );
    }

    let find = |text: &str| {
        format!(
            "(() => {{ const box = document.getElementById('search'); box.value = '{text}'; box.dispatchEvent(new Event('input')); }})()"
        )
    };
    browser.evaluate(&find("10.9.0.17/"))?;
    browser.wait_for("document.getElementById('n-peers').textContent === '1 of 200'")?;
    browser.wait_for(&first("site-119"))?;
    browser.evaluate(&find("nobody"))?;
    browser.wait_for(&format!(
        "{n_rows} === 0 && !document.getElementById('no-peers').hidden"
    ))?;
    browser.evaluate(&find(""))?;
    answer_as_ever(browser)
}

/// Has a piece of JavaScript change the list of peers, `told`, before the page sees it.
fn answer_with(browser: &mut Browser, change: &str) -> Result<()> {
    browser.evaluate(&format!(
        "window.asked = window.fetch; \
         window.fetch = async (path, options) => {{ \
           const answer = await window.asked(path, options); \
           if (path !== 'v1/peers') return answer; \
           const told = await answer.json(); \
           {change} \
           return new Response(JSON.stringify(told)); \
         }}; 0"
    ))?;
    Ok(())
}

fn answer_as_ever(browser: &mut Browser) -> Result<()> {
    browser.evaluate("window.fetch = window.asked; 0")?;
    browser.wait_for("document.querySelectorAll('#peers tbody tr').length === 1")
}

/// Whatever a node says is text in the page, in the table and in the detail.
fn nothing_becomes_markup(browser: &mut Browser) -> Result<()> {
    browser.evaluate("window.hostile = '<img src=x onerror=\"window.struck = true\"><b>bold</b>'; 0")?;
    answer_with(
        browser,
        "told.peers.forEach((peer) => { \
           peer.id = peer.name = peer.comment = peer.address = peer.last_dial_error = window.hostile; peer.allowed_ips = [window.hostile]; \
           peer.addresses = [{ address: window.hostile, origin: window.hostile, last_dial_error: window.hostile }]; \
         });",
    )?;
    // The name, the inner address and the path, each in its own cell.
    browser.wait_for(
        "[...document.querySelectorAll('#peers td')].slice(0, 3).every((cell) => cell.innerText.includes('<b>bold</b>'))",
    )?;
    browser.evaluate("document.querySelector('#peers button.peer').click(); 0")?;
    browser.wait_for(
        "['name', 'comment', 'allowed', 'multiaddress', 'id', 'error', 'dialled'].every((part) => \
           document.getElementById(`detail-${part}`).innerText.includes('<b>bold</b>'))",
    )?;
    assert_eq!(
        browser.evaluate("document.querySelector('img, b:not([class])')")?,
        Value::Null
    );
    assert_eq!(browser.evaluate("window.struck === undefined")?, true);
    for width in [390, 1280] {
        browser.show_as(width, "light")?;
        fits(browser, width)?;
    }
    browser.evaluate("document.querySelector('#detail .close').click(); 0")?;
    answer_as_ever(browser)
}
