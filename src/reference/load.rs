//! The reference data into a production API over REST, in at most 16 requests.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::factory::{Factory, FactoryError, Material};
use super::rest::{Rest, RestError};

/// What [`load`] created; all 0 where everything stood already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    pub materials: usize,
    pub prices: usize,
    pub parts: usize,
    pub machines: usize,
}

impl Loaded {
    /// True where the API held the reference data before.
    pub fn was_there(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Factory(#[from] FactoryError),
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The API numbers on from rows that were there before.
    #[error(
        "the API gave new {rows} ids from {got}, the simulator's messages need them from {expected}: its database \
         has held other {rows} before; use an empty one"
    )]
    Ids {
        rows: &'static str,
        expected: i32,
        got: i32,
    },
}

/// Loads the reference data where it is not there yet, and completes it where an earlier load broke off.
/// `base_url` is like `http://127.0.0.1:3002`.
///
/// Machines come last: once they are there, everything is.
pub async fn load(base_url: &str) -> Result<Loaded, LoadError> {
    let factory = Factory::reference()?;
    let rest = Rest::new(base_url)?;
    let there = There::read(&rest).await?;
    if there.complete(&factory) {
        return Ok(Loaded::default());
    }
    let mut loaded = Loaded::default();
    let material_ids = create_materials(&rest, &factory, &there, &mut loaded).await?;
    create_parts(&rest, &factory, &there, &mut loaded).await?;
    for (material, id) in factory.materials.iter().zip(material_ids) {
        link_parts(&rest, &factory, material, id).await?;
        create_prices(&rest, material, id, &mut loaded).await?;
    }
    create_machines(&rest, &factory, &there, &mut loaded).await?;
    Ok(loaded)
}

/// What the API holds before.
struct There {
    materials: Vec<MaterialRow>,
    parts: BTreeSet<i32>,
    machines: BTreeSet<i32>,
}

#[derive(Deserialize)]
struct MaterialRow {
    id: i32,
    name: String,
}

#[derive(Deserialize)]
struct Row {
    id: i32,
}

impl There {
    async fn read(rest: &Rest) -> Result<Self, RestError> {
        let materials = rest.get("/materials").await?;
        let parts: Vec<Row> = rest.get("/part-information").await?;
        let machines: Vec<Row> = rest.get("/machine").await?;
        let ids = |rows: Vec<Row>| rows.into_iter().map(|row| row.id).collect();
        Ok(Self {
            materials,
            parts: ids(parts),
            machines: ids(machines),
        })
    }

    fn material(&self, name: &str) -> Option<i32> {
        self.materials
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.id)
    }

    fn complete(&self, factory: &Factory) -> bool {
        factory
            .materials
            .iter()
            .all(|material| self.material(&material.name).is_some())
            && factory.parts.iter().all(|part| self.parts.contains(&part.id))
            && factory
                .machines
                .iter()
                .all(|machine| self.machines.contains(&machine.id))
    }
}

/// The id of each material, in the order of the factory; no message carries it, so any will do.
async fn create_materials(
    rest: &Rest,
    factory: &Factory,
    there: &There,
    loaded: &mut Loaded,
) -> Result<Vec<i32>, LoadError> {
    let missing = |material: &&Material| there.material(&material.name).is_none();
    let names: Vec<Value> = factory
        .materials
        .iter()
        .filter(missing)
        .map(|material| json!({ "name": material.name }))
        .collect();
    let mut created: Vec<MaterialRow> = Vec::new();
    if !names.is_empty() {
        created = rest
            .post("/materials/many-materials", &json!({ "materials": names }))
            .await?;
        loaded.materials = created.len();
    }
    let id = |material: &Material| {
        let new = || {
            created
                .iter()
                .find(|row| row.name == material.name)
                .map(|row| row.id)
        };
        there.material(&material.name).or_else(new)
    };
    Ok(factory.materials.iter().filter_map(id).collect())
}

async fn create_parts(
    rest: &Rest,
    factory: &Factory,
    there: &There,
    loaded: &mut Loaded,
) -> Result<(), LoadError> {
    let missing: Vec<_> = factory
        .parts
        .iter()
        .filter(|part| !there.parts.contains(&part.id))
        .collect();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let body = |part: &&super::factory::Part| json!({ "defaultPrice": part.default_price, "timeToProduce": part.time_to_produce_s });
    let parts: Vec<Value> = missing.iter().map(body).collect();
    let path = "/part-information/many-part-informations";
    let created: Vec<Row> = rest.post(path, &json!({ "partInformations": parts })).await?;
    expect_ids("parts", missing.iter().map(|part| part.id), first.id, &created)?;
    loaded.parts = created.len();
    Ok(())
}

async fn create_machines(
    rest: &Rest,
    factory: &Factory,
    there: &There,
    loaded: &mut Loaded,
) -> Result<(), LoadError> {
    let missing: Vec<i32> = factory
        .machines
        .iter()
        .map(|machine| machine.id)
        .filter(|id| !there.machines.contains(id))
        .collect();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let created: Vec<Row> = rest
        .post("/machine/many-machines", &json!({ "quantity": missing.len() }))
        .await?;
    expect_ids("machines", missing.iter().copied(), *first, &created)?;
    loaded.machines = created.len();
    Ok(())
}

fn expect_ids(
    rows: &'static str,
    expected: impl Iterator<Item = i32>,
    first: i32,
    created: &[Row],
) -> Result<(), LoadError> {
    if expected.eq(created.iter().map(|row| row.id)) {
        return Ok(());
    }
    Err(LoadError::Ids {
        rows,
        expected: first,
        got: created.first().map_or(0, |row| row.id),
    })
}

/// Repeating it changes nothing: a link exists once.
async fn link_parts(rest: &Rest, factory: &Factory, material: &Material, id: i32) -> Result<(), LoadError> {
    let made_of = factory
        .parts
        .iter()
        .filter(|part| part.materials.contains(&material.id));
    let parts: Vec<i32> = made_of.map(|part| part.id).collect();
    let body = json!({ "partInformationIds": parts });
    let _: Value = rest
        .post(&format!("/materials/{id}/part-informations"), &body)
        .await?;
    Ok(())
}

/// Repeating it changes nothing: a price is an upsert by material and day.
async fn create_prices(
    rest: &Rest,
    material: &Material,
    id: i32,
    loaded: &mut Loaded,
) -> Result<(), LoadError> {
    let body = json!({ "prices": material.prices });
    let _: Value = rest
        .post(&format!("/materials/prices/{id}/many-prices"), &body)
        .await?;
    loaded.prices += material.prices.len();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::api_fixture::{Api, Rows};

    const ALL: Loaded = Loaded {
        materials: 5,
        prices: 70,
        parts: 100,
        machines: 50,
    };

    #[tokio::test]
    async fn an_empty_api_gets_everything_in_16_small_requests_and_a_second_load_changes_nothing() {
        let api = Api::start(Rows::default()).await;
        assert_eq!(load(&api.base_url).await.unwrap(), ALL);
        {
            let rows = api.rows();
            assert!(
                rows.requests.len() <= 16 && rows.body_bytes_max < 102_400,
                "{:?}",
                rows.requests
            );
            assert_eq!(
                (rows.materials.len(), rows.parts.len(), rows.machines.len()),
                (5, 100, 50)
            );
            assert_eq!(rows.materials.first().unwrap(), "iron");
            assert_eq!(
                rows.parts.first().unwrap(),
                &json!({ "defaultPrice": 21.6154, "timeToProduce": 153 })
            );
        }
        let before = api.rows().requests.len();
        assert!(load(&api.base_url).await.unwrap().was_there());
        let rows = api.rows();
        assert!(
            rows.requests
                .iter()
                .skip(before)
                .all(|request| request.starts_with("GET "))
        );
    }

    #[tokio::test]
    async fn every_part_is_linked_to_its_materials_and_every_price_arrives() {
        let api = Api::start(Rows::default()).await;
        load(&api.base_url).await.unwrap();
        let rows = api.rows();
        // Part 1 is of copper and zinc, materials 2 and 3.
        let of_part_1 = rows.links.iter().filter(|(_, body)| {
            body.get("partInformationIds")
                .and_then(Value::as_array)
                .unwrap()
                .contains(&json!(1))
        });
        let paths: Vec<_> = of_part_1.map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["/materials/2/part-informations", "/materials/3/part-informations"]
        );
        let (path, body) = rows.prices.first().unwrap();
        assert_eq!(path, "/materials/prices/1/many-prices");
        assert_eq!(
            body.pointer("/prices/0"),
            Some(&json!({ "price": 9.91, "date": "01-01-2010" }))
        );
    }

    #[tokio::test]
    async fn a_load_that_broke_off_anywhere_is_completed_by_the_next() {
        for breaks_at in 1..=16 {
            let api = Api::start(Rows {
                breaks_at: Some(breaks_at),
                ..Rows::default()
            })
            .await;
            let error = load(&api.base_url).await.unwrap_err().to_string();
            assert!(error.contains("500"), "{error}");
            assert!(!load(&api.base_url).await.unwrap().was_there());
            let rows = api.rows();
            assert_eq!(
                (rows.materials.len(), rows.parts.len(), rows.machines.len()),
                (5, 100, 50)
            );
            let linked: BTreeSet<_> = rows.links.iter().map(|(path, _)| path).collect();
            let priced: BTreeSet<_> = rows.prices.iter().map(|(path, _)| path).collect();
            assert_eq!(
                (linked.len(), priced.len()),
                (5, 5),
                "broken at request {breaks_at}"
            );
        }
    }

    #[tokio::test]
    async fn a_rate_limit_is_waited_out() {
        let api = Api::start(Rows {
            limits_at: Some(5),
            ..Rows::default()
        })
        .await;
        assert_eq!(load(&api.base_url).await.unwrap(), ALL);
        assert_eq!(api.rows().parts.len(), 100);
    }

    #[tokio::test]
    async fn ids_that_the_simulator_does_not_publish_are_an_error_with_the_remedy() {
        let api = Api::start(Rows {
            deleted_before: 7,
            ..Rows::default()
        })
        .await;
        let error = load(&api.base_url).await.unwrap_err().to_string();
        assert!(
            error.contains("from 8") && error.contains("use an empty one"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_address_of_another_form_is_named() {
        for wrong in [
            "127.0.0.1:3002",
            "https://127.0.0.1:3002",
            "http://127.0.0.1:3002/api/v1",
            "",
        ] {
            let error = load(wrong).await.unwrap_err().to_string();
            assert!(
                error.contains(&format!("{wrong:?}")) && error.contains("http://host:port"),
                "{error}"
            );
        }
    }
}
