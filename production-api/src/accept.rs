//! Headers that list what a client takes, each with a quality (RFC 9110, section 12.4.2).

use http::{HeaderMap, HeaderName};

/// The names in a header's lines as they were sent, each with its quality: 1 where none is given, 0 where it is none.
pub(crate) fn weighted(headers: &HeaderMap, name: &HeaderName) -> Vec<(String, f32)> {
    let lines = headers.get_all(name).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(range).collect()
}

fn range(range: &str) -> (String, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .map(|(_, quality)| quality.trim().parse().unwrap_or(0.0));
    (name.to_owned(), quality.unwrap_or(1.0))
}
