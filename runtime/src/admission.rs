//! Who may come in: so many connections in all, from one address, and in a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use crate::metrics;

/// Tokens that come back with time; one second's worth may be spent at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_s: f64,
    tokens: f64,
    last: Instant,
}

impl Rate {
    /// 0 is no limit.
    pub(crate) fn new(per_s: u32, now: Instant) -> Self {
        Self {
            per_s: per_s.into(),
            tokens: per_s.into(),
            last: now,
        }
    }

    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        if self.per_s == 0.0 {
            return true;
        }
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        self.tokens = (self.tokens + passed * self.per_s).min(self.per_s);
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

/// Open connections by address. Holds no address without a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of one address; given back when dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// `None` where the address has all its places.
    pub(crate) fn take(&self, address: IpAddr, max: usize) -> Option<AddressPlace> {
        let address = one_client(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// One client commands a whole /64 of IPv6.
fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// One place among a listener's connections and among those of its address.
#[derive(Debug)]
pub(crate) struct Permit {
    listener: &'static str,
    _place: OwnedSemaphorePermit,
    _address: AddressPlace,
}

impl Permit {
    pub(crate) fn new(listener: &'static str, place: OwnedSemaphorePermit, address: AddressPlace) -> Self {
        metrics::opened(listener);
        Self {
            listener,
            _place: place,
            _address: address,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        metrics::closed(self.listener);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_admits_its_number_and_time_brings_it_back() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        let admitted = (0..100).filter(|_| rate.admits(start)).count();
        assert_eq!(admitted, 10);
        let later = start + Duration::from_millis(300);
        assert_eq!((0..100).filter(|_| rate.admits(later)).count(), 3);
        let idle = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| rate.admits(idle)).count(), 10);
        let mut unlimited = Rate::new(0, start);
        assert!((0..100_000).all(|_| unlimited.admits(start)));
    }

    #[test]
    fn an_address_has_its_places_and_gives_them_back() {
        let addresses = Addresses::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = addresses.take(one, 2).unwrap();
        let _second = addresses.take(one, 2).unwrap();
        assert!(addresses.take(one, 2).is_none());
        let other_place = addresses.take(other, 2).unwrap();
        drop(first);
        assert!(addresses.take(one, 2).is_some());
        drop(other_place);
        assert_eq!(
            addresses.open.lock().unwrap().len(),
            1,
            "no entry without a connection"
        );
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_its_ipv4() {
        let addresses = Addresses::default();
        let _one = addresses.take("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert!(addresses.take("2001:db8::ffff:2".parse().unwrap(), 1).is_none());
        assert!(addresses.take("2001:db8:0:1::1".parse().unwrap(), 1).is_some());
        let _four = addresses.take("10.0.0.1".parse().unwrap(), 1).unwrap();
        assert!(addresses.take("::ffff:10.0.0.1".parse().unwrap(), 1).is_none());
        assert!(addresses.take("::ffff:10.0.0.2".parse().unwrap(), 1).is_some());
    }
}
