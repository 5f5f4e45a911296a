//! Open files: enough for every connection that the configuration permits, or fewer connections. A shell often grants
//! 1024, and a connection that took the last one would take it from the spool.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shopfloor_runtime::accept::ListenerConfig;

/// For the spool, the sessions, the sinks and, where the limit is too low for all, the admin endpoint.
const RESERVED: u64 = 512;
/// Of them for the admin endpoint: a scraper and a few probes.
const ADMIN_PLACES: usize = 64;

/// Raises this process's limit as far as it needs and may, and gives the listeners as many places as are left.
pub(crate) fn fit(listeners: &mut [ListenerConfig], admin: &mut ListenerConfig) {
    let all = wanted(listeners).saturating_add(admin.max_connections as u64);
    if let Some(files) = raise(all.saturating_add(RESERVED)) {
        distribute(files, listeners, admin);
    }
}

fn wanted(listeners: &[ListenerConfig]) -> u64 {
    listeners
        .iter()
        .map(|listener| listener.max_connections as u64)
        .sum()
}

fn distribute(files: u64, listeners: &mut [ListenerConfig], admin: &mut ListenerConfig) {
    let wanted = wanted(listeners);
    let places = files.saturating_sub(RESERVED);
    if wanted.saturating_add(admin.max_connections as u64) <= places {
        return;
    }
    admin.max_connections = admin.max_connections.min(ADMIN_PLACES);
    if wanted <= places {
        return;
    }
    tracing::warn!(
        open_files = files,
        wanted,
        places,
        "the limit of open files is below mqtt.listeners.max_connections: fewer connections are taken, others wait; \
         raise it (`ulimit -n`, or LimitNOFILE= of the service) or lower max_connections"
    );
    for listener in listeners {
        listener.max_connections = share(listener.max_connections, places, wanted);
    }
}

/// The limit now; `None` where there is none.
fn raise(needed: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.filter(|current| *current < needed)?;
    let files = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit {
        current: Some(files),
        maximum: limit.maximum,
    };
    Some(setrlimit(Resource::Nofile, raised).map_or(current, |()| files))
}

/// What one listener gets of `places`, by what it wanted of all that was `wanted`.
fn share(own: usize, places: u64, wanted: u64) -> usize {
    let share = own as u128 * u128::from(places) / u128::from(wanted.max(1));
    usize::try_from(share).unwrap_or(own).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shared_as_they_were_wanted_and_each_listener_has_one() {
        let shares = [20_000, 10_000, 1].map(|own| share(own, 3_000, 30_001));
        assert_eq!(shares, [1_999, 999, 1]);
    }

    #[test]
    fn the_admin_endpoint_takes_no_file_that_the_spool_needs() {
        let listener = || ListenerConfig::new(([127, 0, 0, 1], 0).into());
        let fitted = |files| {
            let (mut mqtt, mut admin) = ([listener()], listener());
            distribute(files, &mut mqtt, &mut admin);
            (mqtt[0].max_connections, admin.max_connections)
        };
        assert_eq!(fitted(700), (188, ADMIN_PLACES), "few for both");
        assert_eq!(
            fitted(20_000 + RESERVED),
            (20_000, ADMIN_PLACES),
            "enough for MQTT"
        );
        assert_eq!(fitted(40_000 + RESERVED), (20_000, 20_000), "enough for both");
    }
}
