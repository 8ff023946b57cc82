//! Where a request may carry a token or a pass.

use axum::http::{HeaderMap, HeaderName, header};

const WAITING_TOKEN: HeaderName = HeaderName::from_static("x-waiting-token");

/// The cookie of a pass on plain HTTP.
pub(super) const COOKIE: &str = "anteroom_pass";
/// The same over TLS, with the prefix that browsers guard: only this very host can have set it.
pub(super) const SECURE_COOKIE: &str = "__Host-anteroom_pass";

/// What is in a header, where a token may be as well as a pass.
pub(super) fn in_headers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let waiting = headers.get(WAITING_TOKEN).and_then(|value| value.to_str().ok());
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    waiting.into_iter().chain(bearer)
}

/// What is in cookies, where only a pass may be; the guarded one comes first.
pub(super) fn in_cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    [SECURE_COOKIE, COOKIE].into_iter().flat_map(|name| named(headers, name))
}

fn named<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(move |pair| {
        let (its_name, value) = pair.trim().split_once('=')?;
        (its_name == name).then_some(value)
    })
}
