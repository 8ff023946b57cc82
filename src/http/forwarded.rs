//! What a proxy says of the request that it hands on, or asks about. Anyone may write these headers,
//! so they are read of trusted proxies only.

use axum::http::HeaderMap;

use crate::http::Arrived;

/// The original request, as far as a trusted proxy describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// `X-Forwarded-Proto`: `https` or `http`.
    pub proto: Option<&'a str>,
    /// `X-Forwarded-Host`: the host that the browser named, with a port where it is not the usual one.
    pub host: Option<&'a str>,
    /// `X-Forwarded-Uri`: path and query.
    pub uri: Option<&'a str>,
    /// `X-Forwarded-Method`.
    pub method: Option<&'a str>,
}

impl<'a> Forwarded<'a> {
    /// What these headers say, if whoever sent them is believed.
    pub fn of(headers: &'a HeaderMap, arrived: &Arrived) -> Self {
        if arrived.is_from_proxy() { Self::believed(headers) } else { Self::default() }
    }

    fn believed(headers: &'a HeaderMap) -> Self {
        // A header that is there twice is of two opinions, and so of none.
        let said = |name: &str| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none())?.to_str().ok()
        };
        // Of proxies behind one another the first has talked to the browser.
        let first = |name: &str| said(name)?.split(',').next().map(str::trim);
        Self {
            proto: first("x-forwarded-proto"),
            host: first("x-forwarded-host"),
            uri: said("x-forwarded-uri"),
            method: said("x-forwarded-method"),
        }
    }

    /// The origin that the browser sees, as it writes it itself (RFC 6454, 6.2).
    pub fn origin(&self) -> Option<String> {
        Some(format!("{}://{}", self.proto?, self.host?.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_first_proxy_has_seen_the_browser_and_a_header_twice_says_nothing() {
        let chain = headers(&[
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "Shop.example:8443,inner"),
            ("x-forwarded-uri", "/seats?row=1,2"),
        ]);
        let said = Forwarded::believed(&chain);
        assert_eq!(said.origin().as_deref(), Some("https://shop.example:8443"));
        assert_eq!((said.uri, said.method), (Some("/seats?row=1,2"), None));
        let twice = headers(&[
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(Forwarded::believed(&twice).origin(), None);
    }
}
