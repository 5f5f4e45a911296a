//! Exactly-once delivery: a consumer that reads what is committed sees each record once and in order, whatever is killed.

mod cursors;
mod kills;
mod refusals;
mod switching;

use std::ops::Range;

const EXACTLY_ONCE: &str = "delivery = \"exactly-once\"";

fn texts(what: &str, count: usize) -> impl Iterator<Item = String> {
    numbered(what, 0..count)
}

fn numbered(what: &str, numbers: Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(move |n| format!("{what} {n}"))
}
