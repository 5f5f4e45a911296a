//! Entity tags, and the conditions that requests make of them (RFC 9110, sections 8.8.3 and 13).
//!
//! A tag is the hash of what GET answers: the same from every API process and after a dump and a restore, and no
//! column of the original's tables is needed for it. A write compares it under the row's lock, in its own
//! transaction.

use std::fmt::Write;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Bytes of the hash that a tag carries.
const TAG_BYTES: usize = 16;
/// At the end of the tag of a compressed answer.
const GZIP: &str = "-gzip";

/// A strong entity tag, with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntityTag(String);

impl EntityTag {
    /// The tag of what GET answers for `entity`.
    pub(crate) fn of(entity: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(entity).map_err(|error| Error::Store {
            kind: "encode",
            is_temporary: false,
            source: Box::new(error),
        })?;
        Ok(Self::of_body(&body))
    }

    pub(crate) fn of_body(body: &[u8]) -> Self {
        let mut tag = String::with_capacity(2 * TAG_BYTES + 2);
        tag.push('"');
        for byte in Sha256::digest(body).iter().take(TAG_BYTES) {
            // Writing to a String cannot fail.
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        Self(tag)
    }

    /// What the tag `plain` becomes beside the same body in gzip.
    pub(crate) fn of_gzip(plain: &str) -> Option<HeaderValue> {
        let open = plain.strip_suffix('"')?;
        HeaderValue::try_from(format!("{open}{GZIP}\"")).ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        self.0.parse().ok()
    }
}

/// How long the body is that a 304 stands for. A response extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Withheld {
    pub(crate) bytes: usize,
}

/// `If-Match` and `If-None-Match` of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Debug, Clone, PartialEq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq)]
struct Tag {
    weak: bool,
    /// With its quotes.
    opaque: String,
}

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Error;

    /// An `If-Match` that is none is refused: ignoring it would write what the client wanted guarded. An
    /// `If-None-Match` that is none matches nothing, as in the original.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let if_match = match tags(&parts.headers, &header::IF_MATCH) {
            Some(None) => {
                let text = "If-Match must be * or a list of entity tags in double quotes, as ETag has them";
                return Err(Error::Malformed(text.into()));
            }
            found => found.flatten(),
        };
        let if_none_match = tags(&parts.headers, &header::IF_NONE_MATCH).flatten();
        Ok(Self {
            if_match,
            if_none_match,
        })
    }
}

impl Conditions {
    pub(crate) fn are_none(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Lets a write pass while the row that it changes, held locked, is as the request wants it.
    pub(crate) fn permit(&self, current: &impl Serialize) -> Result<(), Error> {
        if self.are_none() {
            return Ok(());
        }
        let tag = EntityTag::of(current)?;
        let wanted = self.if_match.as_ref().is_none_or(|tags| tags.have_strong(&tag));
        let unwanted = self
            .if_none_match
            .as_ref()
            .is_some_and(|tags| tags.have_weak(&tag));
        if wanted && !unwanted {
            return Ok(());
        }
        Err(Error::PreconditionFailed(
            "The resource has changed: it is not what If-Match or If-None-Match asks for. Read it again."
                .into(),
        ))
    }

    /// The same where there is nothing yet that GET would answer.
    pub(crate) fn permit_absent(&self) -> Result<(), Error> {
        match self.if_match {
            None => Ok(()),
            Some(_) => Err(Error::PreconditionFailed(
                "There is nothing yet that If-Match could match.".into(),
            )),
        }
    }

    /// True where the client has what GET would answer.
    pub(crate) fn is_unmodified(&self, tag: &EntityTag) -> Result<bool, Error> {
        if self.if_match.as_ref().is_some_and(|tags| !tags.have_strong(tag)) {
            return Err(Error::PreconditionFailed(
                "The resource is not what If-Match asks for.".into(),
            ));
        }
        Ok(self
            .if_none_match
            .as_ref()
            .is_some_and(|tags| tags.have_weak(tag)))
    }
}

/// Refuses `If-Match` on writes to an address that GET has no single answer for: links, batches, lists. Ignoring it
/// would write what the client wanted guarded.
pub(crate) async fn refuse_elsewhere(request: Request, next: Next) -> Result<Response, Error> {
    let has_tag = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|route| route.as_str().ends_with("/{id}"));
    if !has_tag && !request.method().is_safe() && request.headers().contains_key(header::IF_MATCH) {
        return Err(Error::PreconditionFailed(
            "This address has no entity tag that If-Match could match.".into(),
        ));
    }
    Ok(next.run(request).await)
}

impl Tags {
    /// For writes: a weak tag says nothing about the bytes.
    fn have_strong(&self, tag: &EntityTag) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|listed| !listed.weak && listed.names(tag)),
        }
    }

    fn have_weak(&self, tag: &EntityTag) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|listed| listed.names(tag)),
        }
    }
}

impl Tag {
    /// Whether it was sent with what `tag` is of, compressed or not.
    fn names(&self, tag: &EntityTag) -> bool {
        let sent = self.opaque.strip_suffix('"').unwrap_or_default();
        let plain = sent.strip_suffix(GZIP).unwrap_or(sent);
        tag.0.strip_suffix('"') == Some(plain)
    }
}

/// `None` where the header is not sent, `Some(None)` where it is no list of tags.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Option<Tags>> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let lines: Option<Vec<&str>> = lines.map(|line| line.to_str().ok()).collect();
    Some(lines.and_then(|lines| parse(&lines.join(","))))
}

fn parse(text: &str) -> Option<Tags> {
    if text.trim() == "*" {
        return Some(Tags::Any);
    }
    let mut listed = Vec::new();
    let mut rest = text;
    loop {
        // Empty elements of a list are allowed.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return (!listed.is_empty()).then_some(Tags::Listed(listed));
        }
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        // A tag may hold a comma, so its quotes decide.
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        listed.push(Tag {
            weak,
            opaque: format!("\"{opaque}\""),
        });
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(tags: &[(bool, &str)]) -> Option<Tags> {
        let tag = |(weak, opaque): &(bool, &str)| Tag {
            weak: *weak,
            opaque: (*opaque).to_owned(),
        };
        Some(Tags::Listed(tags.iter().map(tag).collect()))
    }

    #[test]
    fn lists_of_tags_are_read_as_rfc_9110_writes_them() {
        assert_eq!(parse(" * "), Some(Tags::Any));
        assert_eq!(parse("\"a\""), listed(&[(false, "\"a\"")]));
        assert_eq!(
            parse("\"a,b\" ,, W/\"c\",\"\""),
            listed(&[(false, "\"a,b\""), (true, "\"c\""), (false, "\"\"")])
        );
    }

    #[test]
    fn what_is_no_list_of_tags_is_none() {
        for text in [
            "",
            "a",
            "\"a",
            "\"a\"b",
            "w/\"a\"",
            "*, \"a\"",
            "\"a\" \"b\"",
            ",",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_weak_tag_revalidates_a_copy_and_guards_no_write() {
        let tag = EntityTag::of_body(b"body");
        let weak = parse(&format!("W/{}", tag.0)).unwrap();
        assert!(weak.have_weak(&tag) && !weak.have_strong(&tag));
        let strong = parse(&tag.0).unwrap();
        assert!(strong.have_weak(&tag) && strong.have_strong(&tag));
        assert_ne!(tag, EntityTag::of_body(b"other body"));
    }

    #[test]
    fn the_tag_of_a_compressed_answer_stands_for_the_same_state() {
        let tag = EntityTag::of_body(b"body");
        let gzip = EntityTag::of_gzip(tag.as_str()).unwrap();
        let sent = parse(gzip.to_str().unwrap()).unwrap();
        assert!(sent.have_strong(&tag) && sent.have_weak(&tag));
        assert!(!sent.have_strong(&EntityTag::of_body(b"other body")));
        for other in ["\"-gzip\"", "\"\""] {
            assert!(!parse(other).unwrap().have_weak(&tag), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_a_tag_that_is_read_is_there(text in "[\"*,W/ab \t]{0,24}") {
            if let Some(Tags::Listed(tags)) = parse(&text) {
                for tag in tags {
                    assert!(text.contains(&tag.opaque));
                }
            }
        }
    }
}
