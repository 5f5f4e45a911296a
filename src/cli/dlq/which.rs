//! Which letters are meant, as an operator says it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use shopfloor_bridge::dead_letters::letter::{Filter, Place};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Kafka's clock may be this much behind the gateway's.
const CLOCKS_APART_MS: i64 = 3_600_000;

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Which {
    /// Meant for this Kafka topic, or published on this MQTT topic.
    #[arg(long)]
    topic: Option<String>,
    /// Published by this MQTT client.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// From this machine, by its topic or its payload.
    #[arg(long)]
    machine: Option<String>,
    /// With this in the reason, capitals or not.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Accepted at this time or later: 2023-12-10T00:00:00Z, or 30m, 12h, 7d ago.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    since: Option<i64>,
    /// Accepted before this time.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    until: Option<i64>,
}

impl Which {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            topic: self.topic.clone(),
            client: self.client.clone(),
            machine: self.machine.clone(),
            reason: self.reason.clone(),
            since_ms: self.since,
            until_ms: self.until,
            ..Filter::default()
        }
    }
}

/// From when on Kafka has to be read for these letters. It takes a record after the gateway does.
pub(super) fn read_from_ms(filter: &Filter) -> Option<i64> {
    let of_id = filter.record_id.as_ref().and_then(accepted_ms);
    let from = filter.since_ms.max(of_id)?;
    Some(from.saturating_sub(CLOCKS_APART_MS).max(0))
}

/// A record's id is a version 7 UUID of its reception.
fn accepted_ms(id: &Uuid) -> Option<i64> {
    let (high, _) = id.as_u64_pair();
    (id.get_version_num() == 7).then(|| i64::try_from(high >> 16).ok())?
}

/// One letter, by the id of its record or by its place.
pub(super) fn one(id: &str) -> Result<Filter> {
    if let Ok(id) = id.parse() {
        return Ok(Filter {
            record_id: Some(id),
            ..Filter::default()
        });
    }
    match id.parse::<Place>() {
        Ok(place) => Ok(Filter {
            place: Some(place),
            ..Filter::default()
        }),
        Err(_) => bail!(
            "{id:?} is no letter: write the id that `dlq list` shows, or topic/PARTITION/OFFSET or disk/SEQUENCE"
        ),
    }
}

fn moment_ms(text: &str) -> Result<i64, String> {
    let ms = match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(moment) => i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok(),
        Err(_) => ago(text).and_then(|ago| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.saturating_sub(ago).as_millis()).ok()
        }),
    };
    ms.ok_or_else(|| {
        format!("{text:?} is no time: write 2023-12-10T00:00:00Z, or 90s, 30m, 12h, 7d for that long ago")
    })
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_so_long_ago() {
        assert_eq!(moment_ms("2023-12-10T00:00:00Z"), Ok(1_702_166_400_000));
        assert_eq!(moment_ms("2023-12-10T01:00:00+01:00"), Ok(1_702_166_400_000));
        let (day, hours) = (moment_ms("1d").unwrap(), moment_ms("24h").unwrap());
        assert!((hours - day).abs() < 10_000, "{day} {hours}");
        for wrong in ["", "d", "1w", "yesterday", "-1h", "99999999999999999999d", "ä"] {
            assert!(moment_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_letter_is_named_by_its_record_or_by_its_place() {
        let by_id = one("018c5153-e000-7000-8000-000000000001").unwrap();
        assert_eq!(read_from_ms(&by_id), Some(0x018c_5153_e000 - CLOCKS_APART_MS));
        let by_place = one("topic/3/17").unwrap();
        assert_eq!(read_from_ms(&by_place), None);
        assert!(one("17").is_err());
    }
}
