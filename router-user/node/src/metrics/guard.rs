//! Decides which requests are answered: those addressed to this host by a name that no foreign name server can give it.
//!
//! A web page from anywhere may ask its visitor's browser to fetch from `http://name.of.the.page:9464/`. Once that name
//! resolves to this host (DNS rebinding) the browser takes the answer for the page's own and lets it read it. An
//! address and `localhost` cannot be made to resolve elsewhere, and the operator's own names are the operator's.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::control::HttpRefusal;

/// Headers of every answer. It is not to be stored, its type is not to be guessed, and only pages of this listener may
/// use it.
const HEADERS: [(header::HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Names that requests may be addressed to, beside addresses and `localhost`; in lower case.
pub(super) type Hosts = Arc<[String]>;

/// Refuses requests addressed to another host, and adds [`HEADERS`] to every answer.
pub(super) async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut response = match check(request.headers(), &hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}

fn check(headers: &HeaderMap, hosts: &[String]) -> Result<(), HttpRefusal> {
    let mut named = headers.get_all(header::HOST).into_iter();
    let (Some(host), None) = (named.next(), named.next()) else {
        let wrong = "a request says in one Host header which host it is addressed to";
        return Err(HttpRefusal::new(StatusCode::BAD_REQUEST, wrong.to_owned()));
    };
    let authority: Option<Authority> = host.to_str().ok().and_then(|host| host.parse().ok());
    let name = authority.as_ref().map(Authority::host).unwrap_or_default();
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    let known = bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|host| name.eq_ignore_ascii_case(host));
    if known {
        return Ok(());
    }
    let wrong =
        format!("requests to {name:?} are not answered; use the address, or add the name to metrics.hosts");
    Err(HttpRefusal::new(StatusCode::FORBIDDEN, wrong))
}
