//! Rows that more than one file reads, as entities.

use tokio_postgres::Row;

use super::error::StoreError;
use crate::model::{Decimal, Material, Part};

pub(super) fn material(row: &Row) -> Result<Material, StoreError> {
    Ok(Material {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
    })
}

pub(super) const PART_COLUMNS: &str = "id, \"defaultPrice\"::text, \"timeToProduce\"";

pub(super) fn part(row: &Row) -> Result<Part, StoreError> {
    Ok(Part {
        id: row.try_get(0)?,
        default_price: Decimal::Stored(row.try_get(1)?),
        time_to_produce: row.try_get(2)?,
    })
}

/// Those of `ids` that are not there, in the order of the request: `2, 888`.
pub(super) fn missing(ids: &[i32], is_there: impl Fn(&i32) -> bool) -> Option<String> {
    let gone: Vec<String> = ids
        .iter()
        .filter(|id| !is_there(id))
        .map(i32::to_string)
        .collect();
    (!gone.is_empty()).then(|| gone.join(", "))
}
