//! The reference data: what the factory makes, of what, on which machine and how fast.
//!
//! `data/factory-reference.json` numbers machines from 1 but materials and parts from 0, while rows are numbered
//! from 1. Here every id is the row's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

const JSON: &str = include_str!("../../data/factory-reference.json");

/// The materials, parts and machines of one factory, by row id.
#[derive(Debug, Clone, PartialEq)]
pub struct Factory {
    /// Ordered by id, 1 and up without gaps.
    pub materials: Vec<Material>,
    /// Ordered by id, 1 and up without gaps.
    pub parts: Vec<Part>,
    /// Ordered by id, 1 and up without gaps; each makes at least one part.
    pub machines: Vec<Machine>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Material {
    pub id: i32,
    pub name: String,
    pub prices: Vec<Price>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub price: serde_json::Number,
    /// Day, as the production API reads it (`01-01-2010`).
    pub date: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub id: i32,
    pub default_price: serde_json::Number,
    /// Seconds that a machine needs for one.
    pub time_to_produce_s: u32,
    /// What it is made of, each once.
    pub materials: BTreeSet<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub id: i32,
    /// The parts that it can make, by id.
    pub parts: Vec<i32>,
}

#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    #[error("data/factory-reference.json: not of the expected form")]
    Form(#[from] serde_json::Error),
    #[error("data/factory-reference.json: {0}")]
    Content(String),
}

impl Factory {
    /// The factory that the binary carries: 5 materials, 100 parts, 50 machines.
    pub fn reference() -> Result<Self, FactoryError> {
        Self::from_json(JSON)
    }

    fn from_json(json: &str) -> Result<Self, FactoryError> {
        let file: File = serde_json::from_str(json)?;
        let mut makes: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
        for part in &file.parts {
            for machine in &part.machine_ids {
                makes.entry(*machine).or_default().insert(part.id + 1);
            }
        }
        let factory = Self {
            materials: file.materials.into_iter().map(Material::from).collect(),
            parts: file.parts.into_iter().map(Part::from).collect(),
            machines: makes
                .into_iter()
                .map(|(id, parts)| Machine {
                    id,
                    parts: parts.into_iter().collect(),
                })
                .collect(),
        };
        factory.check()?;
        Ok(factory)
    }

    /// The part with that id.
    pub fn part(&self, id: i32) -> Option<&Part> {
        usize::try_from(id)
            .ok()?
            .checked_sub(1)
            .and_then(|index| self.parts.get(index))
    }

    fn check(&self) -> Result<(), FactoryError> {
        let gapless = |ids: &mut dyn Iterator<Item = i32>| ids.zip(1..).all(|(id, expected)| id == expected);
        let wrong = |what: &str| Err(FactoryError::Content(what.to_owned()));
        if !gapless(&mut self.materials.iter().map(|material| material.id)) {
            return wrong("materials must be numbered 0, 1, 2 and so on");
        }
        if !gapless(&mut self.parts.iter().map(|part| part.id)) {
            return wrong("parts must be numbered 0, 1, 2 and so on");
        }
        if !gapless(&mut self.machines.iter().map(|machine| machine.id)) {
            return wrong("machineIds must name every machine from 1 up");
        }
        let known = |id: &i32| self.materials.iter().any(|material| material.id == *id);
        if !self
            .parts
            .iter()
            .all(|part| part.time_to_produce_s > 0 && part.materials.iter().all(known))
        {
            return wrong("every part needs a timeToProduce above 0 and materials that exist");
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    materials: Vec<FileMaterial>,
    parts: Vec<FilePart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMaterial {
    id: i32,
    name: String,
    prices: Vec<Price>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FilePart {
    id: i32,
    default_price: serde_json::Number,
    material_ids: Vec<i32>,
    time_to_produce: u32,
    machine_ids: Vec<i32>,
}

impl From<FileMaterial> for Material {
    fn from(file: FileMaterial) -> Self {
        Self {
            id: file.id + 1,
            name: file.name,
            prices: file.prices,
        }
    }
}

impl From<FilePart> for Part {
    fn from(file: FilePart) -> Self {
        Self {
            id: file.id + 1,
            default_price: file.default_price,
            time_to_produce_s: file.time_to_produce,
            materials: file.material_ids.into_iter().map(|id| id + 1).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_data_has_5_materials_100_parts_and_50_machines_numbered_from_1() {
        let factory = Factory::reference().unwrap();
        let ids = |last: i32| (1..=last).collect::<Vec<_>>();
        assert_eq!(factory.materials.iter().map(|m| m.id).collect::<Vec<_>>(), ids(5));
        assert_eq!(factory.parts.iter().map(|p| p.id).collect::<Vec<_>>(), ids(100));
        assert_eq!(factory.machines.iter().map(|m| m.id).collect::<Vec<_>>(), ids(50));
        assert!(
            factory
                .materials
                .iter()
                .all(|material| material.prices.len() == 14)
        );
    }

    #[test]
    fn the_first_part_keeps_its_machines_and_gets_its_materials_row_ids() {
        // {"id": 0, "materialIds": [2, 1], "timeToProduce": 153, "machineIds": [35, 36, 20]}
        let factory = Factory::reference().unwrap();
        let part = factory.part(1).unwrap();
        assert_eq!(
            (part.time_to_produce_s, &part.materials),
            (153, &BTreeSet::from([2, 3]))
        );
        let makers = factory
            .machines
            .iter()
            .filter(|machine| machine.parts.contains(&1))
            .map(|m| m.id);
        assert_eq!(makers.collect::<Vec<_>>(), [20, 35, 36]);
    }

    #[test]
    fn a_file_with_a_gap_in_its_machines_is_refused() {
        let json = r#"{"materials":[],"parts":[{"id":0,"defaultPrice":1,"materialIds":[],"timeToProduce":1,"machineIds":[1,3]}]}"#;
        let error = Factory::from_json(json).unwrap_err().to_string();
        assert!(error.contains("machineIds must name every machine"), "{error}");
    }
}
