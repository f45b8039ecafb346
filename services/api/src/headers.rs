//! Headers that every response gets, unless its handler sets them.

use axum::http::{HeaderValue, header};
use axum::response::Response;

/// Weakens the `ETag` of a compressed body. The compressed and the plain body of
/// one version differ, so they must not share a strong `ETag` (RFC 9110, section
/// 8.8.3.3).
pub fn weaken_etag(response: &mut Response) {
    let headers = response.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(tag) = headers.get_mut(header::ETAG)
        && let Ok(text) = tag.to_str()
        && !text.starts_with("W/")
        && let Ok(weak) = HeaderValue::try_from(format!("W/{text}"))
    {
        *tag = weak;
    }
}

/// Restricts what browsers and caches do with a response.
pub fn add_security_headers(response: &mut Response) {
    for (name, value) in [
        // Nearly every response contains data of a reader, which must not stay on the disk
        // of a shared computer.
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}
