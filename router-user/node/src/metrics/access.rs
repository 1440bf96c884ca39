//! Decides which requests may do more than read what everybody may.
//!
//! A page from elsewhere cannot pass: it does not have the token, its browser adds an `Authorization` header to nothing of
//! its own accord, and asks first whether the page may; here nobody says yes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::token::Token;
use crate::control::HttpRefusal;

const SCHEME: &[u8] = b"bearer ";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The token that counts, which a reload may replace; without one nothing but reading is allowed.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<ArcSwapOption<Token>>);

impl Access {
    /// Lets this token count from now on.
    pub fn set(&self, token: Option<Token>) {
        self.0.store(token.map(Arc::new));
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), HttpRefusal> {
        let refusal = |code, why: &str| Err(HttpRefusal::new(code, why.to_owned()));
        let token = self.0.load();
        let Some(token) = token.as_deref() else {
            let why = "this needs a token, and the node has none: metrics.token_file names its file";
            return refusal(StatusCode::FORBIDDEN, why);
        };
        if !is_own_origin(headers) {
            return refusal(StatusCode::FORBIDDEN, "this is for the page of this node alone");
        }
        let mut given = headers.get_all(header::AUTHORIZATION).into_iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            let why = "this needs one header `Authorization: Bearer TOKEN`";
            return refusal(StatusCode::UNAUTHORIZED, why);
        };
        let presented = given.as_bytes().split_at_checked(SCHEME.len());
        let is_right = presented
            .is_some_and(|(scheme, presented)| scheme.eq_ignore_ascii_case(SCHEME) && token.is(presented));
        if !is_right {
            warn!("a request for the metrics address with a wrong token was refused");
            return refusal(StatusCode::UNAUTHORIZED, "the token is wrong");
        }
        Ok(())
    }
}

/// Passes on requests with the token.
pub(super) async fn authorize(State(access): State<Access>, request: Request, next: Next) -> Response {
    let Err(refusal) = access.check(request.headers()) else {
        return next.run(request).await;
    };
    let mut response = refusal.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Returns whether no browser says that a page of another origin asks.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_host = |origin: &HeaderValue| {
        let origin: Option<Uri> = origin.to_str().ok().and_then(|origin| origin.parse().ok());
        let authority = origin
            .as_ref()
            .and_then(Uri::authority)
            .map(|authority| authority.as_str());
        authority.is_some_and(|authority| host.is_some_and(|host| authority.eq_ignore_ascii_case(host)))
    };
    let is_same = |site: &HeaderValue| site == "same-origin" || site == "none";
    headers.get_all(header::ORIGIN).into_iter().all(is_host)
        && headers.get_all(FETCH_SITE).into_iter().all(is_same)
}
