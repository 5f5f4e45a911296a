//! What can be done to the whole, by name.

use std::fmt;
use std::str::FromStr;

use crate::clock::Clock;
use crate::disk::Disk;

/// A process of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Gateway,
    Api,
    Kafka,
    Postgres,
    Haproxy,
}

/// A connection between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    /// Devices to HAProxy.
    Devices,
    /// Gateway and APIs to Kafka.
    Kafka,
    /// Gateway to HAProxy, on its way to an API.
    Api,
    /// APIs to Postgres.
    Postgres,
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`, then a start.
    Kill(Part),
    /// SIGSTOP for longer than every timeout, then SIGCONT.
    Stop(Part),
    /// Nothing passes in either direction, and nobody is told; then it goes on, or never does.
    Hang(Wire),
    /// No byte is left on the gateway's disk, then it is freed.
    DiskFull,
    /// The gateway's disk refuses writes, then takes them again.
    ReadOnly,
    /// A dead gateway's newest segment ends in a write that was cut short.
    TornTail,
    /// A bit of one of a dead gateway's newest records is changed.
    FlippedTail,
    /// Bits anywhere in a dead gateway's segments are changed.
    FlippedAny,
    /// The wall clock of gateway and APIs jumps, and later back.
    ClockStep,
}

const PARTS: [Part; 5] = [
    Part::Gateway,
    Part::Api,
    Part::Kafka,
    Part::Postgres,
    Part::Haproxy,
];
const WIRES: [Wire; 4] = [Wire::Devices, Wire::Kafka, Wire::Api, Wire::Postgres];

impl Fault {
    /// Every kind.
    pub fn all() -> Vec<Self> {
        let kills = PARTS.map(Self::Kill);
        let stops = PARTS.map(Self::Stop);
        let hangs = WIRES.map(Self::Hang);
        let others = [
            Self::DiskFull,
            Self::ReadOnly,
            Self::TornTail,
            Self::FlippedTail,
            Self::FlippedAny,
            Self::ClockStep,
        ];
        [&kills[..], &stops, &hangs, &others].concat()
    }

    /// Why it cannot be done here; `None` where it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::DiskFull | Self::ReadOnly => Disk::missing(),
            Self::ClockStep => Clock::missing(),
            _ => None,
        }
    }

    /// The kinds that a comma-separated list names; `kill` is all of `kill-gateway`, `kill-api` and so on.
    pub fn chosen(list: &str) -> Result<Vec<Self>, String> {
        let mut chosen = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let group = format!("{name}-");
            let named = |fault: &Self| {
                let full = fault.to_string();
                full == name || full.starts_with(&group)
            };
            let found: Vec<_> = Self::all().into_iter().filter(named).collect();
            if found.is_empty() {
                let known: Vec<_> = Self::all().iter().map(Self::to_string).collect();
                return Err(format!(
                    "no fault is called {name:?}; there are {}",
                    known.join(", ")
                ));
            }
            chosen.extend(found);
        }
        chosen.sort();
        chosen.dedup();
        if chosen.is_empty() {
            Ok(Self::all())
        } else {
            Ok(chosen)
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, object) = match self {
            Self::Kill(part) => ("kill", part.name()),
            Self::Stop(part) => ("stop", part.name()),
            Self::Hang(wire) => ("hang", wire.name()),
            Self::DiskFull => ("disk", "full"),
            Self::ReadOnly => ("disk", "read-only"),
            Self::TornTail => ("bytes", "torn-tail"),
            Self::FlippedTail => ("bytes", "flipped-tail"),
            Self::FlippedAny => ("bytes", "flipped-any"),
            Self::ClockStep => ("clock", "step"),
        };
        f.pad(&format!("{verb}-{object}"))
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match Self::chosen(name)?.as_slice() {
            [fault] => Ok(*fault),
            _ => Err(format!("{name:?} is more than one fault")),
        }
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Api => "api",
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Haproxy => "haproxy",
        }
    }
}

impl Wire {
    fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Kafka => "kafka",
            Self::Api => "api",
            Self::Postgres => "postgres",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name_and_by_its_group() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        assert_eq!(Fault::chosen("kill").unwrap().len(), PARTS.len());
        assert_eq!(
            Fault::chosen("hang-kafka, kill-api,kill-api").unwrap(),
            [Fault::Kill(Part::Api), Fault::Hang(Wire::Kafka)]
        );
        assert_eq!(Fault::chosen("").unwrap(), Fault::all());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = Fault::chosen("kill-gateway,melt").unwrap_err();
        assert!(
            error.contains("\"melt\"") && error.contains("stop-kafka"),
            "{error}"
        );
    }
}
