//! Pages of lists, and lists of some units, by keyset: a page costs the same wherever in the list it is.

use futures_util::Stream;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::rows::{PART_COLUMNS, material, part};
use super::units::{COLUMNS as UNIT_COLUMNS, unit};
use super::{Store, StoreError, machines};
use crate::cursor::UnitKey;
use crate::model::{Machine, Material, Part, Unit};
use crate::paging::Page;
use crate::validate::unit_filter::UnitFilter;

type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;

impl Store {
    /// One row more than the page has, where there is one: so in all four.
    pub(crate) async fn materials_page(&self, page: &Page<i32>) -> Result<Vec<Material>, StoreError> {
        self.page_by_id("id, name", "material", page, material).await
    }

    pub(crate) async fn parts_page(&self, page: &Page<i32>) -> Result<Vec<Part>, StoreError> {
        self.page_by_id(PART_COLUMNS, "part_information", page, part)
            .await
    }

    pub(crate) async fn machines_page(&self, page: &Page<i32>) -> Result<Vec<Machine>, StoreError> {
        self.page_by_id("id", "machine", page, machines::machine).await
    }

    pub(crate) async fn units_page(
        &self,
        filter: &UnitFilter,
        page: &Page<UnitKey>,
    ) -> Result<Vec<Unit>, StoreError> {
        let (sql, mut parameters) = chosen_units(filter, page.after);
        parameters.push(Box::new(i64::from(page.rows) + 1));
        let sql = format!("{sql} LIMIT ${}", parameters.len());
        self.read_page(&sql, &parameters, unit).await
    }

    /// All units that the filter leaves, in the order of their production.
    pub(crate) async fn chosen_units(
        &self,
        filter: &UnitFilter,
    ) -> Result<impl Stream<Item = Result<Unit, StoreError>> + Send + use<>, StoreError> {
        let (sql, parameters) = chosen_units(filter, None);
        self.rows_with(&sql, parameters, unit).await
    }

    async fn page_by_id<T>(
        &self,
        columns: &str,
        table: &str,
        page: &Page<i32>,
        read: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let sql = format!("SELECT {columns} FROM {table} WHERE id > $1::bigint ORDER BY id LIMIT $2");
        let after = page.after.map_or(i64::MIN, i64::from);
        let parameters: Parameters = vec![Box::new(after), Box::new(i64::from(page.rows) + 1)];
        self.read_page(&sql, &parameters, read).await
    }

    async fn read_page<T>(
        &self,
        sql: &str,
        parameters: &Parameters,
        read: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|one| &**one as _).collect();
        let rows = client.query(&statement, &parameters).await?;
        rows.iter().map(read).collect()
    }
}

/// Migration V4 has an index for each: by machine, by part, by time alone.
fn chosen_units(filter: &UnitFilter, after: Option<UnitKey>) -> (String, Parameters) {
    let mut parameters = Parameters::new();
    let mut wanted = Vec::new();
    let mut must = |condition: &str, value: Box<dyn ToSql + Sync + Send>| {
        parameters.push(value);
        wanted.push(format!("{condition} ${}", parameters.len()));
    };
    if let Some(machine_id) = filter.machine_id {
        must("\"machineId\" =", Box::new(machine_id));
    }
    if let Some(part_id) = filter.part_id {
        must("\"partId\" =", Box::new(part_id));
    }
    if let Some(to_s) = filter.to_s {
        must("\"timeOfProduction\" <", Box::new(to_s));
    }
    // A page goes on where the one before ended; the first begins behind the last second that does not count.
    let start = after.unwrap_or(UnitKey {
        time_s: filter.from_s.map_or(i64::MIN, |from| from.saturating_sub(1)),
        id: Uuid::max(),
    });
    parameters.push(Box::new(start.time_s));
    parameters.push(Box::new(start.id));
    let count = parameters.len();
    wanted.push(format!("(\"timeOfProduction\", id) > (${}, ${count})", count - 1));
    let sql = format!(
        "SELECT {UNIT_COLUMNS} FROM supply_chain WHERE {} ORDER BY \"timeOfProduction\", id",
        wanted.join(" AND ")
    );
    (sql, parameters)
}
