//! The status page, and what a browser may do with it.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page: its style and its scripts, which share one scope, stand in the places that its markup has for them.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let markup = include_str!("page/page.html");
    let style = concat!("\n", include_str!("page/style.css"));
    let script = concat!(
        "\n\"use strict\";\n(() => {\n",
        include_str!("page/base.js"),
        include_str!("page/plots.js"),
        include_str!("page/peers.js"),
        include_str!("page/manage.js"),
        include_str!("page/main.js"),
        "})();\n"
    );
    markup
        .replacen("<style>", &format!("<style>{style}"), 1)
        .replacen("<script>", &format!("<script>{script}"), 1)
});

/// Policy of the page: its own script and style, known by their hashes, and requests to its own origin; nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    );
    HeaderValue::from_str(&policy).expect("Base64 and constants are ASCII")
});

/// Answers with the page.
pub(super) async fn get_page() -> impl IntoResponse {
    (
        [(header::CONTENT_SECURITY_POLICY, POLICY.clone())],
        Html(PAGE.as_str()),
    )
}

/// Returns the content of the page's one element of this name.
fn content(element: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("<{element}>")).expect("the page has it");
    let (content, _) = rest
        .split_once(&format!("</{element}>"))
        .expect("the page closes it");
    content
}

fn hash(element: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content(element))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_no_markup() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        for outside in ["http://", "https://", " src=", "@import", "url("] {
            let found = PAGE
                .replace("http://www.w3.org/2000/svg", "")
                .matches(outside)
                .count();
            assert_eq!(found, 0, "{outside}");
        }
        for unescaped in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=\"",
        ] {
            assert!(!PAGE.contains(unescaped), "{unescaped}");
        }
    }

    #[test]
    fn the_policy_allows_the_script_and_the_style_by_their_hashes_alone() {
        let policy = POLICY.to_str().unwrap();

        assert!(
            policy.starts_with("default-src 'none'; script-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }
}
