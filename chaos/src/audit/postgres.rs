//! What Postgres holds.

use anyhow::{Context, Result};

use crate::rig::Rig;
use crate::unit::Unit;

/// Rows of units, without what they are.
pub(super) fn count(rig: &Rig) -> Result<usize> {
    let printed = rig.psql("SELECT count(*) FROM supply_chain;")?;
    printed.trim().parse().with_context(|| printed.clone())
}

/// Every unit's row; the table keeps whole seconds.
pub(super) fn read(rig: &Rig) -> Result<Vec<Unit>> {
    let rows = rig.psql(
        r#"COPY (SELECT "machineId", "order", "partId", "timeOfProduction" FROM supply_chain) TO STDOUT;"#,
    )?;
    rows.lines()
        .map(|row| unit(row).with_context(|| format!("the row {row:?} is no unit")))
        .collect()
}

fn unit(row: &str) -> Option<Unit> {
    let mut fields = row.split('\t');
    let mut number = || fields.next()?.parse::<i64>().ok();
    let (machine, order, part, time_s) = (number()?, number()?, number()?, number()?);
    let narrow = |number: i64| i32::try_from(number).ok();
    Unit::new(narrow(machine)?, narrow(order)?, narrow(part)?, time_s * 1000)
}
