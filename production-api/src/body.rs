//! A request's body to a value, before anything else looks at the request.
//!
//! The original read every body first: a broken one is refused on any route, known or not, and is not counted
//! by the rate limit. A body of another content type than the two below counts as none.

use std::io::Read;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sha2::{Digest, Sha256};

use crate::api::Api;
use crate::error::Error;
use crate::js::{Js, form, json};

/// The body as a value; an empty map where the request has none.
#[derive(Debug, Clone)]
pub(crate) struct Payload(pub(crate) Js);

impl<S: Sync> FromRequestParts<S> for Payload {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.remove().unwrap_or(Self(Js::Map(Vec::new()))))
    }
}

/// The hash of the body's text: what tells a repeated request from another under the same key. A request extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint(pub(crate) [u8; 32]);

/// Reads the body into a [`Payload`] extension, and leaves its [`Fingerprint`].
pub(crate) async fn read(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match payload(&parts.headers, body, api.config.max_body_bytes).await {
        Ok((value, fingerprint)) => {
            parts.extensions.insert(Payload(value));
            parts.extensions.insert(fingerprint);
            next.run(Request::from_parts(parts, Body::empty())).await
        }
        Err(error) => error.into_response(),
    }
}

impl Fingerprint {
    fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Json,
    Form,
}

async fn payload(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<(Js, Fingerprint), Error> {
    let Some((format, charset)) = content_type(headers) else {
        return Ok((Js::Map(Vec::new()), Fingerprint::of(b"")));
    };
    if charset != "utf-8" {
        let charset = charset.to_ascii_uppercase();
        return Err(Error::UnsupportedMedia(format!(
            "unsupported charset \"{charset}\""
        )));
    }
    let encoding = Encoding::of(headers)?;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if encoding == Encoding::Identity && declared.is_some_and(|length| length > max_bytes) {
        return Err(Error::TooLarge);
    }
    let bytes = match Limited::new(body, max_bytes).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Error::TooLarge),
        Err(_) => return Err(Error::Malformed("request aborted".into())),
    };
    let bytes = encoding.decode(bytes, max_bytes)?;
    let fingerprint = Fingerprint::of(&bytes);
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let value = match format {
        _ if text.is_empty() => Js::Map(Vec::new()),
        Format::Json => json::parse_body(text).map_err(Error::Malformed)?,
        Format::Form => form::parse(text).map_err(|_| Error::TooLarge)?,
    };
    Ok((value, fingerprint))
}

/// The format and the lower-case charset; `None` where the body is of neither format.
fn content_type(headers: &HeaderMap) -> Option<(Format, String)> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parts = value.split(';');
    let format = match parts.next()?.trim().to_ascii_lowercase().as_str() {
        "application/json" => Format::Json,
        "application/x-www-form-urlencoded" => Format::Form,
        _ => return None,
    };
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, charset)| charset.trim().trim_matches('"').to_ascii_lowercase());
    Some((format, charset.unwrap_or_else(|| "utf-8".into())))
}

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        let name = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        match name.as_str() {
            "identity" | "" => Ok(Self::Identity),
            "gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            _ => Err(Error::UnsupportedMedia(format!(
                "unsupported content encoding \"{name}\""
            ))),
        }
    }

    fn decode(self, bytes: Bytes, max_bytes: usize) -> Result<Bytes, Error> {
        // One byte over the limit is enough to know.
        let most = max_bytes as u64 + 1;
        let mut plain = Vec::new();
        let outcome = match self {
            Self::Identity => return Ok(bytes),
            Self::Gzip => flate2::read::GzDecoder::new(&bytes[..])
                .take(most)
                .read_to_end(&mut plain),
            Self::Deflate => flate2::read::ZlibDecoder::new(&bytes[..])
                .take(most)
                .read_to_end(&mut plain),
        };
        match outcome {
            Ok(_) if plain.len() > max_bytes => Err(Error::TooLarge),
            Ok(_) => Ok(plain.into()),
            Err(_) => Err(Error::Malformed("incorrect header check".into())),
        }
    }
}
