//! The table `unit_change`: which units changed, in an order in which nothing can come late.
//!
//! A reader goes by transaction, and only up to the oldest one that is still under way in the cluster: all below it
//! have ended, so no change can appear behind a reader's back. A long transaction delays readers, and loses nothing.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::try_join3;
use uuid::Uuid;

use super::units::{COLUMNS, unit};
use super::{Store, StoreError};
use crate::model::Unit;

/// Rows of the table that one look reads, of up to 250 units each.
const ROWS: i64 = 16;
/// Units that one look answers.
const UNITS: usize = 500;

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    transaction: i64,
    position: i64,
    /// Among the units of the row.
    index: i64,
}

/// What one look finds.
#[derive(Debug)]
pub(crate) enum Changes {
    /// Changes after the reader's place are no longer there, or never were: it starts anew.
    Gap,
    Some {
        units: Vec<Change>,
        /// Where the reader stands once it has read them.
        seen: Place,
        /// There is more.
        more: bool,
    },
}

/// A unit as it is now, none where it is gone.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) place: Place,
    pub(crate) id: Uuid,
    pub(crate) unit: Option<Unit>,
}

impl Place {
    /// Behind everything of the transactions up to this one.
    fn after(transaction: i64) -> Self {
        Self {
            transaction,
            position: i64::MAX,
            index: i64::MAX,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position == i64::MAX {
            write!(f, "{}", self.transaction)
        } else {
            write!(f, "{}-{}-{}", self.transaction, self.position, self.index)
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain).ok_or(())
        };
        match text.split('-').collect::<Vec<_>>().as_slice() {
            [transaction] => Ok(Self::after(number(transaction)?)),
            [transaction, position, index] => Ok(Self {
                transaction: number(transaction)?,
                position: number(position)?,
                index: number(index)?,
            }),
            _ => Err(()),
        }
    }
}

impl Store {
    /// The place of a reader that wants what comes: all of what is still under way included.
    pub(crate) async fn unit_changes_from_now(&self) -> Result<Place, StoreError> {
        let client = self.client().await?;
        let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        let statement = client.prepare_cached(sql).await?;
        let oldest: i64 = client.query_one(&statement, &[]).await?.try_get(0)?;
        Ok(Place::after(oldest - 1))
    }

    /// What changed after `seen`.
    pub(crate) async fn unit_changes(&self, seen: Place) -> Result<Changes, StoreError> {
        let client = self.client().await?;
        let bounds = client
            .prepare_cached(
                "SELECT pg_snapshot_xmin(now)::text::bigint, pg_snapshot_xmax(now)::text::bigint
                 FROM pg_current_snapshot() AS now",
            )
            .await?;
        let changes = client
            .prepare_cached(
                "SELECT transaction, position, unit_ids FROM unit_change
                 WHERE (transaction, position) >= ($1, $2)
                   AND transaction < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
                 ORDER BY transaction, position LIMIT $3",
            )
            .await?;
        // Read last: what is trimmed before the changes are read shows here.
        let floor = client
            .prepare_cached("SELECT transaction FROM unit_change_floor")
            .await?;
        let (of_changes, none) = (
            [&seen.transaction as _, &seen.position as _, &ROWS as _],
            [] as [&(dyn tokio_postgres::types::ToSql + Sync); 0],
        );
        // All three are on the wire at once, in this order.
        let (bounds, rows, floor) = try_join3(
            client.query_one(&bounds, &none),
            client.query(&changes, &of_changes),
            client.query_one(&floor, &none),
        )
        .await?;
        let (oldest, next): (i64, i64) = (bounds.try_get(0)?, bounds.try_get(1)?);
        let floor: i64 = floor.try_get(0)?;
        // Numbers of transactions to come are those of another cluster, which this database was dumped from.
        if seen.transaction >= next || (floor < next && seen < Place::after(floor)) {
            return Ok(Changes::Gap);
        }
        let mut found = Vec::new();
        for row in &rows {
            let (transaction, position) = (row.try_get(0)?, row.try_get(1)?);
            let ids: Vec<Uuid> = row.try_get(2)?;
            let places = (0..).map(|index| Place {
                transaction,
                position,
                index,
            });
            found.extend(places.zip(ids).filter(|(place, _)| *place > seen));
        }
        let more = found.len() > UNITS || i64::try_from(rows.len()).is_ok_and(|rows| rows == ROWS);
        found.truncate(UNITS);
        let last = found.last().map(|(place, _)| *place);
        let seen = match last {
            Some(place) if more => place,
            // The whole of the row, although none of it is new.
            None if more => seen,
            last => Place::after(oldest - 1).max(last.unwrap_or(seen)).max(seen),
        };
        let units = self.units_now(found).await?;
        Ok(Changes::Some { units, seen, more })
    }

    async fn units_now(&self, found: Vec<(Place, Uuid)>) -> Result<Vec<Change>, StoreError> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = found.iter().map(|(_, id)| *id).collect();
        let client = self.client().await?;
        let sql = format!("SELECT {COLUMNS} FROM supply_chain WHERE id = ANY ($1)");
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &[&ids]).await?;
        let units = rows.iter().map(|row| unit(row).map(|unit| (unit.id, unit)));
        let units: HashMap<Uuid, Unit> = units.collect::<Result<_, _>>()?;
        let changes = found.into_iter().map(|(place, id)| Change {
            place,
            id,
            unit: units.get(&id).cloned(),
        });
        Ok(changes.collect())
    }

    /// Forgets changes that are older than `retention`, and the oldest of more than `max_rows` rows.
    pub(crate) async fn trim_unit_changes(
        &self,
        retention: Duration,
        max_rows: u32,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let sql = "WITH bounds AS (
                       SELECT pg_snapshot_xmin(now)::text::bigint AS oldest, pg_snapshot_xmax(now)::text::bigint AS next
                       FROM pg_current_snapshot() AS now),
                   last AS (
                       SELECT greatest(
                           (SELECT max(transaction) FROM unit_change
                            WHERE created_at < now() - make_interval(secs => $1) AND transaction < bounds.oldest),
                           (SELECT transaction FROM unit_change WHERE transaction < bounds.oldest
                            ORDER BY transaction DESC, position DESC OFFSET $2 LIMIT 1)) AS transaction
                       FROM bounds),
                   gone AS (
                       DELETE FROM unit_change USING bounds, last
                       -- Of another cluster, which this database was dumped from.
                       WHERE unit_change.transaction <= last.transaction OR unit_change.transaction >= bounds.next)
                   UPDATE unit_change_floor floor
                   SET transaction = greatest(
                       CASE WHEN floor.transaction < bounds.next THEN floor.transaction ELSE 0 END,
                       last.transaction)
                   FROM bounds, last
                   WHERE last.transaction IS NOT NULL OR floor.transaction >= bounds.next";
        let statement = client.prepare_cached(sql).await?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
            [&retention.as_secs_f64(), &i64::from(max_rows)];
        client.execute(&statement, &parameters).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_is_the_same_after_a_way_through_a_client(transaction in 0..i64::MAX, position in 0..i64::MAX, index in 0..i64::MAX) {
            for place in [Place { transaction, position, index }, Place::after(transaction)] {
                prop_assert_eq!(place.to_string().parse(), Ok(place));
            }
        }

        #[test]
        fn any_text_is_a_place_or_none(text in "[0-9a-z+ -]{0,24}") {
            if let Ok(place) = text.parse::<Place>() {
                prop_assert!(place.transaction >= 0 && place.position >= 0 && place.index >= 0);
            }
        }
    }

    #[test]
    fn what_is_no_place_is_none() {
        for text in [
            "",
            "-",
            "1-2",
            "1-2-3-4",
            "+1",
            "-1",
            "1-2-x",
            "99999999999999999999",
        ] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text:?}");
        }
    }
}
