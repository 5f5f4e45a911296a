//! The limit per client address: a fixed window that begins with the address's first request.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};

use crate::config::RateLimitConfig;
use crate::error::Error;
use crate::metrics;

/// The client's own address, from the PROXY header where the listener requires one. A request extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

/// Windows of all addresses seen lately. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    config: RateLimitConfig,
    windows: Arc<Mutex<Windows>>,
}

#[derive(Debug, Default)]
struct Windows {
    by_address: HashMap<IpAddr, Window>,
    /// Addresses in the order in which their windows began, which is the order in which they end.
    begun: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    count: u32,
}

/// Where an address stands after one more request.
#[derive(Debug, PartialEq)]
struct Standing {
    allowed: bool,
    remaining: u32,
    resets_in: Duration,
}

impl RateLimit {
    pub(crate) fn new(config: RateLimitConfig) -> Self {
        Self {
            config,
            windows: Arc::default(),
        }
    }

    fn count(&self, address: IpAddr, now: Instant) -> Standing {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.forget(now, self.config.max_clients, address);
        let length = Duration::from_secs(u64::from(self.config.window_s));
        if !windows.by_address.contains_key(&address) {
            windows.begun.push_back(address);
        }
        let fresh = Window {
            ends: now + length,
            count: 0,
        };
        let window = windows.by_address.entry(address).or_insert(fresh);
        window.count = window.count.saturating_add(1);
        Standing {
            allowed: window.count <= self.config.requests,
            remaining: self.config.requests.saturating_sub(window.count),
            resets_in: window.ends.saturating_duration_since(now),
        }
    }

    fn describe(&self, standing: &Standing, headers: &mut HeaderMap) {
        // Rounded up: after that many seconds the window has surely ended.
        let seconds = standing.resets_in.as_millis().div_ceil(1000);
        let retry_after = retry_after(headers, standing, seconds);
        let resets_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_add(standing.resets_in)
            .as_secs();
        let (requests, window_s, remaining) =
            (self.config.requests, self.config.window_s, standing.remaining);
        for (name, value) in [
            ("x-ratelimit-limit", requests.to_string()),
            ("x-retry-remaining", remaining.to_string()),
            ("x-retry-reset", resets_at.to_string()),
            ("retry-after", retry_after.to_string()),
            (
                "ratelimit-policy",
                format!("\"default\";q={requests};w={window_s}"),
            ),
            ("ratelimit", format!("\"default\";r={remaining};t={seconds}")),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// What another layer says, which knows when its part is back, unless the limit refuses the client until later.
fn retry_after(headers: &HeaderMap, standing: &Standing, window_s: u128) -> u128 {
    let said = headers.get(RETRY_AFTER);
    let said = said.and_then(|said| said.to_str().ok()?.parse::<u128>().ok());
    match said {
        Some(said) if standing.remaining > 0 => said,
        Some(said) => said.max(window_s),
        None => window_s,
    }
}

impl Windows {
    /// Drops windows that have ended, and the one that ends first where there is no place for `address`.
    fn forget(&mut self, now: Instant, max_clients: usize, address: IpAddr) {
        while let Some(first) = self.begun.front() {
            let ended = self.by_address.get(first).is_none_or(|window| window.ends <= now);
            let full = self.by_address.len() >= max_clients && !self.by_address.contains_key(&address);
            if !ended && !full {
                return;
            }
            self.by_address.remove(first);
            self.begun.pop_front();
        }
    }
}

/// Counts the request against its client's address.
pub(crate) async fn limit(State(limit): State<RateLimit>, request: Request, next: Next) -> Response {
    let address = request
        .extensions()
        .get::<ClientAddress>()
        .map(|client| client.0.ip().to_canonical());
    let Some(address) = address.filter(|_| limit.config.enabled) else {
        return next.run(request).await;
    };
    let standing = limit.count(address, Instant::now());
    let mut response = if standing.allowed {
        next.run(request).await
    } else {
        metrics::rate_limited();
        Error::RateLimited.into_response()
    };
    limit.describe(&standing, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, max_clients: usize) -> RateLimit {
        RateLimit::new(RateLimitConfig {
            enabled: true,
            requests,
            window_s: 60,
            max_clients,
        })
    }

    fn address(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn the_request_after_the_last_is_refused_until_the_window_ends() {
        let (limit, start) = (limit(2, 10), Instant::now());
        assert_eq!(limit.count(address(1), start).remaining, 1);
        assert!(limit.count(address(1), start + Duration::from_secs(59)).allowed);
        assert!(!limit.count(address(1), start + Duration::from_secs(59)).allowed);
        assert!(
            limit.count(address(2), start).allowed,
            "another address has its own window"
        );
        let next = limit.count(address(1), start + Duration::from_secs(60));
        assert_eq!(
            next,
            Standing {
                allowed: true,
                remaining: 1,
                resets_in: Duration::from_secs(60)
            }
        );
    }

    #[test]
    fn another_layers_retry_after_stays_unless_the_limit_refuses_until_later() {
        let limit = limit(2, 10);
        let described = |remaining, said: Option<u64>| {
            let standing = Standing {
                allowed: true,
                remaining,
                resets_in: Duration::from_millis(39_001),
            };
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(RETRY_AFTER, said.into());
            }
            limit.describe(&standing, &mut headers);
            headers[RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!(described(1, None), "40");
        assert_eq!(described(1, Some(2)), "2");
        assert_eq!(described(0, Some(2)), "40");
        assert_eq!(described(0, Some(90)), "90");
    }

    #[test]
    fn no_more_addresses_are_remembered_than_allowed() {
        let (limit, start) = (limit(1, 3), Instant::now());
        for n in 0..200 {
            limit.count(address(n), start);
        }
        let windows = limit.windows.lock().unwrap();
        assert_eq!((windows.by_address.len(), windows.begun.len()), (3, 3));
    }
}
