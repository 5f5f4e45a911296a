//! Until something holds, under a deadline.

use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Blocks until `holds`, or panics with `what` was waited for and `state`, what there was instead.
pub fn until<S: std::fmt::Display>(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> bool,
    state: impl FnOnce() -> S,
) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}; instead: {}",
            within.as_secs(),
            state()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
}
