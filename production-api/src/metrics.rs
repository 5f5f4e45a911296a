//! Every metric of the API.

use metrics::{counter, describe_counter, describe_histogram, histogram};

const REQUEST_SECONDS: &str = "shopfloor_api_request_seconds";
const FAILED_TOTAL: &str = "shopfloor_api_requests_failed_total";
const LIMITED_TOTAL: &str = "shopfloor_api_requests_rate_limited_total";

/// Registers the HELP texts; call once the recorder stands.
pub fn describe() {
    describe_histogram!(
        REQUEST_SECONDS,
        "Time from a request's head to its response's head, by method, route and status."
    );
    describe_counter!(FAILED_TOTAL, "Requests answered with an error, by kind.");
    describe_counter!(LIMITED_TOTAL, "Requests refused by the rate limit.");
}

pub(crate) fn answered(method: &'static str, route: String, status: u16, seconds: f64) {
    histogram!(REQUEST_SECONDS, "method" => method, "route" => route, "status" => status.to_string())
        .record(seconds);
}

pub(crate) fn failed(kind: &'static str) {
    counter!(FAILED_TOTAL, "kind" => kind).increment(1);
}

pub(crate) fn rate_limited() {
    counter!(LIMITED_TOTAL).increment(1);
}
