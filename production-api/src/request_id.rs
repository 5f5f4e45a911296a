//! The name of a request, for both sides' logs: the caller's own where it sent one.

use http::{HeaderMap, HeaderName};
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::Uuid;

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest that is taken from a caller.
const MAX_BYTES: usize = 128;

/// Takes a name off the request that is not fit for logs and headers: it gets one of ours.
pub(crate) fn forget_unfit<B>(mut request: http::Request<B>) -> http::Request<B> {
    let mut lines = request.headers().get_all(HEADER).iter();
    let is_fit = lines.next().is_some_and(|id| {
        let id = id.as_bytes();
        (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    });
    if !is_fit || lines.next().is_some() {
        request.headers_mut().remove(HEADER);
    }
    request
}

/// Names a request that came without one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshId;

impl MakeRequestId for FreshId {
    fn make_request_id<B>(&mut self, _request: &http::Request<B>) -> Option<RequestId> {
        let id = Uuid::now_v7().to_string();
        id.parse().ok().map(RequestId::new)
    }
}

/// Empty where it is no text.
pub(crate) fn of(headers: &HeaderMap) -> &str {
    headers
        .get(HEADER)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_callers_name_is_kept_where_it_is_one_short_visible_word() {
        let kept = |values: &[&[u8]]| {
            let mut request = http::Request::new(());
            for value in values {
                request
                    .headers_mut()
                    .append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            forget_unfit(request).headers().contains_key(HEADER)
        };
        assert!(kept(&[b"a"]) && kept(&[&[b'x'; MAX_BYTES]]) && kept(&[b"01JD-4f/9=:_.+"]));
        let long = [b'x'; MAX_BYTES + 1];
        let unfit: [&[&[u8]]; 7] = [
            &[],
            &[b""],
            &[b"a b"],
            &[b"a\tb"],
            &[b"\xff"],
            &[&long],
            &[b"a", b"a"],
        ];
        for values in unfit {
            assert!(!kept(values), "{values:?}");
        }
    }
}
