//! Every metric of the runtime.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const CONNECTIONS: &str = "shopfloor_connections";
const ACCEPTED_TOTAL: &str = "shopfloor_connections_accepted_total";
const HELD_BACK_TOTAL: &str = "shopfloor_connections_held_back_total";
const PANICS_TOTAL: &str = "shopfloor_connection_panics_total";
const RELOADS_TOTAL: &str = "shopfloor_reloads_total";
const KEY_FETCHES_TOTAL: &str = "shopfloor_jwks_fetches_total";
const REFUSED_TOTAL: &str = "shopfloor_connections_refused_total";

/// Registers the HELP texts; call once the recorder stands.
pub fn describe() {
    describe_gauge!(CONNECTIONS, "Open connections, by listener.");
    describe_counter!(ACCEPTED_TOTAL, "Connections handed to the server, by listener.");
    describe_counter!(
        REFUSED_TOTAL,
        "Connections closed before the server saw them, by listener and reason."
    );
    describe_counter!(
        HELD_BACK_TOTAL,
        "Times that accepting had to wait because all places were taken, by listener."
    );
    describe_counter!(PANICS_TOTAL, "Connections that a panic ended, by listener.");
    describe_counter!(
        RELOADS_TOTAL,
        "Files that were read again, by what they are and outcome (ok, failed: the old ones stay)."
    );
    describe_counter!(
        KEY_FETCHES_TOTAL,
        "Fetches of an identity provider's keys, by outcome (ok, failed)."
    );
}

pub(crate) fn opened(listener: &'static str) {
    gauge!(CONNECTIONS, "listener" => listener).increment(1.0);
}

pub(crate) fn accepted(listener: &'static str) {
    counter!(ACCEPTED_TOTAL, "listener" => listener).increment(1);
}

pub(crate) fn held_back(listener: &'static str) {
    counter!(HELD_BACK_TOTAL, "listener" => listener).increment(1);
}

pub(crate) fn panicked(listener: &'static str) {
    counter!(PANICS_TOTAL, "listener" => listener).increment(1);
}

pub(crate) fn reloaded(what: &'static str, ok: bool) {
    let outcome = if ok { "ok" } else { "failed" };
    counter!(RELOADS_TOTAL, "what" => what, "outcome" => outcome).increment(1);
}

pub(crate) fn closed(listener: &'static str) {
    gauge!(CONNECTIONS, "listener" => listener).decrement(1.0);
}

pub(crate) fn keys_fetched(ok: bool) {
    let outcome = if ok { "ok" } else { "failed" };
    counter!(KEY_FETCHES_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn refused(listener: &'static str, reason: &'static str) {
    counter!(REFUSED_TOTAL, "listener" => listener, "reason" => reason).increment(1);
}
