//! The table `unit_change`: which units changed, in an order in which nothing can come late.
//!
//! A trigger notes changes in their own transaction; they are numbered once that is committed, by one caller at a time
//! (`number_unit_changes`, migration V7). So a number that can be seen has no lower one still to come, no open
//! transaction holds others up, and a crash takes no number back. A place also carries the mark that was made up with
//! its number: another database, or this one put back from a copy, has other marks.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::Client;
use futures_util::future::try_join;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::units::{COLUMNS, unit};
use super::{Store, StoreError};
use crate::model::Unit;

/// Rows of the table that one look reads, of up to 250 units each, and the one that holds the reader's place.
const ROWS: i64 = 17;
/// Units that one look answers.
const UNITS: usize = 500;
const NONE: [&(dyn ToSql + Sync); 0] = [];

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    number: i64,
    /// Units of that row that were read; `None` is all.
    read: Option<u16>,
    mark: Uuid,
}

/// What one look finds.
#[derive(Debug)]
pub(crate) enum Changes {
    /// Changes after the reader's place are no longer there, or never were: it starts anew.
    Gap,
    Some {
        units: Vec<Change>,
        /// There is more.
        more: bool,
    },
}

/// A unit as it is now, none where it is gone.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) place: Place,
    pub(crate) id: Uuid,
    /// None where it was new.
    pub(crate) before: Option<Belonging>,
    pub(crate) unit: Option<Unit>,
}

/// What a unit was of until it changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Belonging {
    pub(crate) machine_id: i32,
    pub(crate) part_id: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        if let Some(read) = self.read {
            write!(f, ".{read}")?;
        }
        write!(f, "-{}", self.mark.simple())
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (count, mark) = text.split_once('-').ok_or(())?;
        let (number, read) = match count.split_once('.') {
            Some((number, read)) => (number, Some(read)),
            None => (count, None),
        };
        let place = Self {
            number: number.parse().map_err(drop)?,
            read: read.map(str::parse).transpose().map_err(drop)?,
            mark: Uuid::try_parse(mark).map_err(drop)?,
        };
        // Numbers can be written in more than one way; a place is written in one.
        (place.to_string() == text && place.number >= 0)
            .then_some(place)
            .ok_or(())
    }
}

/// A row of the table.
struct Noted {
    number: i64,
    mark: Uuid,
    unit_ids: Vec<Uuid>,
    before: Vec<Belonging>,
}

impl Noted {
    /// `None` where the table is empty.
    fn read(row: &Row) -> Result<Option<Self>, StoreError> {
        let Some(number) = row.try_get(2)? else {
            return Ok(None);
        };
        let machine_ids: Option<Vec<i32>> = row.try_get(5)?;
        let part_ids: Option<Vec<i32>> = row.try_get(6)?;
        let before = machine_ids.unwrap_or_default().into_iter();
        let before = before.zip(part_ids.unwrap_or_default());
        Ok(Some(Self {
            number,
            mark: row.try_get(3)?,
            unit_ids: row.try_get(4)?,
            before: before
                .map(|(machine_id, part_id)| Belonging { machine_id, part_id })
                .collect(),
        }))
    }

    /// Its changes behind the first `read` ones, without their units.
    fn changes(self, read: usize) -> impl Iterator<Item = Change> {
        let (number, mark, count) = (self.number, self.mark, self.unit_ids.len());
        let mut before = self.before.into_iter();
        let changes = (1..).zip(self.unit_ids).map(move |(through, id)| Change {
            place: Place {
                number,
                read: u16::try_from(through).ok().filter(|_| through < count),
                mark,
            },
            id,
            before: before.next(),
            unit: None,
        });
        changes.skip(read)
    }
}

impl Store {
    /// The place of a reader that wants what comes: all of what is still under way included.
    pub(crate) async fn unit_changes_from_now(&self) -> Result<Place, StoreError> {
        let client = self.client().await?;
        let renumber = client.prepare_cached("SELECT number_unit_changes()").await?;
        let head = client
            .prepare_cached("SELECT number, mark FROM unit_change_head")
            .await?;
        // Both are on the wire at once, in this order.
        let (_, head) = try_join(client.query_one(&renumber, &NONE), client.query_one(&head, &NONE)).await?;
        Ok(Place {
            number: head.try_get(0)?,
            read: None,
            mark: head.try_get(1)?,
        })
    }

    /// What changed after `seen`.
    pub(crate) async fn unit_changes(&self, seen: Place) -> Result<Changes, StoreError> {
        let client = self.client().await?;
        let renumber = client.prepare_cached("SELECT number_unit_changes()").await?;
        // One statement, so that nothing is trimmed between what it reads.
        let noted = client
            .prepare_cached(
                "SELECT head.floor, head.floor_mark, noted.* FROM unit_change_head AS head LEFT JOIN LATERAL (
                     SELECT number, mark, unit_ids, machine_ids, part_ids FROM unit_change
                     WHERE number >= $1 ORDER BY number LIMIT $2
                 ) AS noted ON true
                 ORDER BY noted.number",
            )
            .await?;
        let from: [&(dyn ToSql + Sync); 2] = [&seen.number, &ROWS];
        let (_, rows) = try_join(client.query_one(&renumber, &NONE), client.query(&noted, &from)).await?;
        let head = rows
            .first()
            .ok_or(StoreError::Unexpected("the head of the unit changes is missing"))?;
        let floor: (i64, Uuid) = (head.try_get(0)?, head.try_get(1)?);
        let noted = rows.iter().filter_map(|row| Noted::read(row).transpose());
        let noted: Vec<Noted> = noted.collect::<Result<_, _>>()?;
        let is_known = |place: (i64, Uuid)| place == (seen.number, seen.mark);
        let first = noted.first().map(|noted| (noted.number, noted.mark));
        // Of a row that was trimmed all must have been read.
        let is_at_floor = is_known(floor) && seen.read.is_none();
        if !is_at_floor && !first.is_some_and(is_known) {
            return Ok(Changes::Gap);
        }
        let mut more = i64::try_from(noted.len()).is_ok_and(|rows| rows == ROWS);
        let mut found = Vec::new();
        for noted in noted {
            let read = match seen.read {
                _ if noted.number > seen.number => 0,
                Some(read) => read.into(),
                None => continue,
            };
            // All units are gone, in a way that names none.
            if noted.unit_ids.is_empty() {
                return Ok(Changes::Gap);
            }
            found.extend(noted.changes(read));
        }
        more |= found.len() > UNITS;
        found.truncate(UNITS);
        read_units(&client, &mut found).await?;
        Ok(Changes::Some { units: found, more })
    }

    /// Forgets changes that were numbered longer than `retention` ago, and the oldest of more than `max_rows` rows.
    pub(crate) async fn trim_unit_changes(
        &self,
        retention: Duration,
        max_rows: u32,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        // Where no stream is open, nobody else does it.
        let renumber = client.prepare_cached("SELECT number_unit_changes()").await?;
        while client.query_one(&renumber, &[]).await?.try_get::<_, i64>(0)? > 0 {}
        let sql = "WITH last AS (
                       SELECT number, mark FROM unit_change
                       WHERE number <= greatest(
                           (SELECT max(number) FROM unit_change
                            WHERE numbered_at < now() - make_interval(secs => $1)),
                           (SELECT number FROM unit_change WHERE number IS NOT NULL
                            ORDER BY number DESC OFFSET $2 LIMIT 1))
                       ORDER BY number DESC LIMIT 1),
                   gone AS (
                       DELETE FROM unit_change USING last WHERE unit_change.number <= last.number)
                   UPDATE unit_change_head AS head SET floor = last.number, floor_mark = last.mark
                   FROM last WHERE head.floor < last.number";
        let statement = client.prepare_cached(sql).await?;
        let parameters: [&(dyn ToSql + Sync); 2] = [&retention.as_secs_f64(), &i64::from(max_rows)];
        client.execute(&statement, &parameters).await?;
        Ok(())
    }
}

/// The units of changes, as they are now, over the connection that found them: a look that waited for a second one
/// while it holds its own would wait for looks that do the same.
async fn read_units(client: &Client, changes: &mut [Change]) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changes.iter().map(|change| change.id).collect();
    let sql = format!("SELECT {COLUMNS} FROM supply_chain WHERE id = ANY ($1)");
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&ids]).await?;
    let units = rows.iter().map(|row| unit(row).map(|unit| (unit.id, unit)));
    let units: HashMap<Uuid, Unit> = units.collect::<Result<_, _>>()?;
    for change in changes {
        change.unit = units.get(&change.id).cloned();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_is_the_same_after_a_way_through_a_client(number in 0..i64::MAX, read: Option<u16>, mark: u128) {
            let place = Place { number, read, mark: Uuid::from_u128(mark) };
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }

        #[test]
        fn any_text_is_a_place_or_none(text in "[0-9a-f+.-]{0,24}") {
            if let Ok(place) = text.parse::<Place>() {
                prop_assert_eq!(place.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_place_is_none() {
        let mark = "00112233445566778899aabbccddeeff";
        assert!(format!("7-{mark}").parse::<Place>().is_ok());
        assert!(format!("7.3-{mark}").parse::<Place>().is_ok());
        for count in [
            "",
            "+7",
            "-7",
            "07",
            "7.",
            "7.x",
            "7.+3",
            "7.70000",
            "99999999999999999999",
        ] {
            assert_eq!(format!("{count}-{mark}").parse::<Place>(), Err(()), "{count:?}");
        }
        for text in ["", "-", "7", "7-", "7-0011", "1-2-3", "9223372036854775807"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text:?}");
        }
    }
}
