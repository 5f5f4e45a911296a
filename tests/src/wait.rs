//! Until something holds, under a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Blocks until `look` finds what is waited for, or panics with `what` that was and what there is instead.
pub fn until<Instead: Display>(what: &str, within: Duration, mut look: impl FnMut() -> Result<(), Instead>) {
    let deadline = Instant::now() + within;
    while let Err(instead) = look() {
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}; instead: {instead}",
            within.as_secs()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// What [`until`] asks for: `Ok` where it holds, else what there is.
pub fn holds<Instead>(holds: bool, instead: Instead) -> Result<(), Instead> {
    if holds { Ok(()) } else { Err(instead) }
}
