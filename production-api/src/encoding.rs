//! Long answers in gzip, for clients that take it.
//!
//! A compressed answer has a strong entity tag of its own: the plain one's with `-gzip` at its end, and conditions take
//! the one for the other. A weak tag, which some servers make of it, never matches `If-Match` (RFC 9110, section
//! 13.1.1): who takes gzip could guard no write. What is compressed is the same bytes each time, so strong is true.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, header};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};

use crate::accept::weighted;
use crate::conditions::{EntityTag, Withheld};

/// What fits into one packet gains nothing.
const MIN_BYTES: u16 = 1_400;

/// For answers of a network packet or more, and for none that must arrive as it is written: streams of events.
pub(crate) fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(MIN_BYTES)
        .and(NotForContentType::SSE)
        .and(NotForContentType::IMAGES);
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(worth_it)
}

/// Around [`compression`]: what it is asked, and the headers that go with what it did. HEAD and 304 have those of the
/// 200 that they stand for.
pub(crate) async fn negotiate(mut request: Request, next: Next) -> Response {
    let takes_gzip = takes_gzip(request.headers());
    // In the one form that needs no knowledge of wildcards.
    let headers = request.headers_mut();
    headers.remove(header::ACCEPT_ENCODING);
    if takes_gzip {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let is_head = request.method() == Method::HEAD;
    if is_head {
        *request.method_mut() = Method::GET;
    }
    let mut response = next.run(request).await;
    let withheld = response.extensions_mut().remove::<Withheld>();
    let is_long = withheld.is_some_and(|withheld| withheld.bytes >= MIN_BYTES.into());
    let headers = response.headers_mut();
    if is_long {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) || (is_long && takes_gzip) {
        mark_tag(headers);
    }
    if is_head { without_body(response) } else { response }
}

fn mark_tag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get_mut(header::ETAG)
        && let Some(marked) = tag.to_str().ok().and_then(EntityTag::of_gzip)
    {
        *tag = marked;
    }
}

fn without_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(bytes) = HttpBody::size_hint(&body).exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert(bytes.into());
    }
    Response::from_parts(head, Body::empty())
}

/// True where the client takes gzip and likes a plain body no better.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut plain) = (None, None, None);
    for (name, quality) in weighted(headers, &header::ACCEPT_ENCODING) {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => plain = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && plain.is_none_or(|plain| gzip >= plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_take_it_and_like_a_plain_body_no_better() {
        for (accepted, takes) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("*", true),
            ("*;q=0.1", true),
            ("br, *;q=0.5", true),
            ("br;q=1, gzip;q=0.5", true),
            ("identity;q=0.5, gzip;q=0.5", true),
            ("identity, gzip;q=0.5", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0", false),
            ("gzip;q=none", false),
            ("*;q=0", false),
            ("identity", false),
            ("br, zstd", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepted.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), takes, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
