//! Which units a list is to have.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::paging::{Asked, whole_number};

/// The names that [`UnitFilter::read`] knows.
pub(crate) const NAMES: [&str; 4] = ["machineId", "partId", "from", "to"];

const ID: &str = "a whole number from 1 to 2147483647";
const TIME: &str = "a date and time with a zone, as 2024-01-31T08:00:00Z";

/// Those that a stream takes: what comes has no time yet.
pub(crate) const NAMES_OF_STREAM: [&str; 2] = ["machineId", "partId"];

/// Units of one machine, of one part, of a time; what is not given does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct UnitFilter {
    pub(crate) machine_id: Option<i32>,
    pub(crate) part_id: Option<i32>,
    /// Seconds since 1970, the first that counts.
    pub(crate) from_s: Option<i64>,
    /// The first that counts no more.
    pub(crate) to_s: Option<i64>,
}

impl UnitFilter {
    pub(crate) fn read(asked: &mut Asked<'_>) -> Self {
        let filter = Self {
            machine_id: asked.filter("machineId", ID, id),
            part_id: asked.filter("partId", ID, id),
            from_s: asked.filter("from", TIME, seconds),
            to_s: asked.filter("to", TIME, seconds),
        };
        if let (Some(from), Some(to)) = (filter.from_s, filter.to_s)
            && from > to
        {
            asked.faults.push("from must not be after to".into());
        }
        filter
    }
}

impl UnitFilter {
    /// Whether it takes units of the machine and the part.
    pub(crate) fn fits(&self, machine_id: i32, part_id: i32) -> bool {
        self.machine_id.is_none_or(|id| id == machine_id) && self.part_id.is_none_or(|id| id == part_id)
    }
}

fn id(text: &str) -> Option<i32> {
    whole_number(text).filter(|id| *id > 0)
}

/// The next whole second: units are stored by the second, so of a time within one nothing that is before it counts.
fn seconds(text: &str) -> Option<i64> {
    // In a query a plus is a space, so a client that does not escape its zone sends one.
    let time = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339).ok()?;
    let part = i64::from(time.nanosecond() > 0);
    Some(time.unix_timestamp() + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone_and_count_from_the_next_whole_second() {
        assert_eq!(seconds("1970-01-01T00:00:10Z"), Some(10));
        assert_eq!(seconds("1970-01-01T00:00:10.001Z"), Some(11));
        assert_eq!(seconds("1970-01-01T01:00:10+01:00"), Some(10));
        assert_eq!(seconds("1970-01-01T01:00:10 01:00"), Some(10));
        for text in ["", "1970-01-01", "1970-01-01T00:00:10", "10", "now"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_is_one_that_a_row_can_have() {
        assert_eq!((id("1"), id("2147483647")), (Some(1), Some(i32::MAX)));
        for text in ["0", "-1", "+1", "2147483648", "1.0", "x", ""] {
            assert_eq!(id(text), None, "{text}");
        }
    }
}
