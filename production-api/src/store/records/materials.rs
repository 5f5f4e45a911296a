//! Materials: with an id their name is set, silently, since the gateway has told Kafka; without one they are
//! created and told through the outbox, as by REST.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Transaction;
use shopfloor_proto::v1::MaterialData;

use super::sequence::move_sequence;
use super::verdict::{Held, Reason, Verdict};
use crate::model::{Material, Written};
use crate::store::StoreError;
use crate::store::outbox::emit;

pub(super) async fn apply(
    tx: &Transaction<'_>,
    materials: &[(usize, &MaterialData)],
) -> Result<Vec<(usize, Verdict)>, StoreError> {
    if materials.is_empty() {
        return Ok(Vec::new());
    }
    // Keeps other writers of names out until the commit; readers and foreign keys pass.
    tx.batch_execute("LOCK TABLE material IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    let ids: Vec<i32> = materials.iter().filter_map(|(_, material)| material.id).collect();
    let names: Vec<&str> = materials
        .iter()
        .map(|(_, material)| material.name.as_str())
        .collect();
    let statement = tx
        .prepare_cached("SELECT id, name FROM material WHERE id = ANY ($1) OR name = ANY ($2)")
        .await?;
    let mut present = HashMap::new();
    for row in tx.query(&statement, &[&ids, &names]).await? {
        present.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let plan = Plan::make(present, materials.iter().map(|(_, material)| *material));
    plan.rename(tx).await?;
    plan.create(tx).await?;
    Ok(materials
        .iter()
        .map(|(index, _)| *index)
        .zip(plan.verdicts)
        .collect())
}

/// Who has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Id(i32),
    /// A material of this batch that has no id yet.
    New,
}

/// The end state of a batch, as if its materials came one by one.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Ids whose row is added or renamed, with the final name.
    named: Vec<(i32, String)>,
    /// Those of them that must let go of their name first, since another takes it.
    parked: Vec<i32>,
    created: Vec<String>,
    verdicts: Vec<Verdict>,
}

impl Plan {
    fn make<'a>(present: HashMap<i32, String>, materials: impl Iterator<Item = &'a MaterialData>) -> Self {
        let mut plan = Self::default();
        let mut owners: HashMap<String, Owner> = present
            .iter()
            .map(|(id, name)| (name.clone(), Owner::Id(*id)))
            .collect();
        let mut names = present.clone();
        let mut touched = HashSet::new();
        for material in materials {
            let owner = owners.get(&material.name).copied();
            let verdict = match (material.id, owner) {
                (Some(id), Some(owner)) if owner != Owner::Id(id) => {
                    Verdict::Held(name_taken(material, id, owner))
                }
                (Some(id), _) => {
                    if let Some(old) = names.insert(id, material.name.clone()) {
                        owners.remove(&old);
                    }
                    owners.insert(material.name.clone(), Owner::Id(id));
                    touched.insert(id);
                    Verdict::Stored
                }
                // A machine that tells again of a material that exists.
                (None, Some(_)) => Verdict::Stored,
                (None, None) => {
                    owners.insert(material.name.clone(), Owner::New);
                    plan.created.push(material.name.clone());
                    Verdict::Stored
                }
            };
            plan.verdicts.push(verdict);
        }
        for id in touched {
            let (before, after) = (present.get(&id), names.remove(&id).unwrap_or_default());
            if before != Some(&after) {
                plan.named.push((id, after));
                plan.parked.extend(before.map(|_| id));
            }
        }
        plan.named.sort_unstable();
        plan
    }

    async fn rename(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        if self.named.is_empty() {
            return Ok(());
        }
        if !self.parked.is_empty() {
            // Names may change hands within the batch, and the constraint looks at every row as it changes.
            tx.execute(
                "UPDATE material SET name = 'renaming ' || gen_random_uuid() WHERE id = ANY ($1)",
                &[&self.parked],
            )
            .await?;
        }
        let (ids, names): (Vec<i32>, Vec<&str>) =
            self.named.iter().map(|(id, name)| (*id, name.as_str())).unzip();
        let statement = tx
            .prepare_cached(
                "INSERT INTO material (id, name) SELECT * FROM unnest($1::int[], $2::text[])
                 ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name",
            )
            .await?;
        tx.execute(&statement, &[&ids, &names]).await?;
        move_sequence(
            tx,
            "SELECT setval('material_id_seq', $1) FROM material_id_seq WHERE last_value <= $1",
            ids.into_iter(),
        )
        .await
    }

    async fn create(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        if self.created.is_empty() {
            return Ok(());
        }
        let statement = tx
            .prepare_cached(
                "INSERT INTO material (name)
                 SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS input (name, ordinal) ORDER BY ordinal
                 RETURNING id, name",
            )
            .await?;
        let mut written = Vec::with_capacity(self.created.len());
        for row in tx.query(&statement, &[&self.created]).await? {
            let (id, name) = (row.try_get(0)?, row.try_get(1)?);
            written.push(Written::changed(Material { id, name }));
        }
        emit(tx, &written).await
    }
}

fn name_taken(material: &MaterialData, id: i32, owner: Owner) -> Held {
    let owner = match owner {
        Owner::Id(other) => format!("material {other}"),
        Owner::New => "a material without an id of the same batch".to_owned(),
    };
    let name = &material.name;
    Held::new(
        Reason::NameTaken,
        format!("material {id} cannot be named {name:?}, which is the name of {owner}; rename one and retry"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn material(id: Option<i32>, name: &str) -> MaterialData {
        MaterialData {
            id,
            name: name.to_owned(),
        }
    }

    fn plan(present: &[(i32, &str)], materials: &[MaterialData]) -> Plan {
        let present = present
            .iter()
            .map(|(id, name)| (*id, (*name).to_owned()))
            .collect();
        Plan::make(present, materials.iter())
    }

    fn held(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Held(held) if held.reason == Reason::NameTaken)
    }

    #[test]
    fn names_change_hands_within_a_batch() {
        let plan = plan(
            &[(1, "zinc"), (2, "tin")],
            &[
                material(Some(1), "spare"),
                material(Some(2), "zinc"),
                material(Some(1), "tin"),
            ],
        );
        assert_eq!(plan.named, [(1, "tin".to_owned()), (2, "zinc".to_owned())]);
        assert_eq!(plan.parked.len(), 2);
        assert!(plan.verdicts.iter().all(|verdict| *verdict == Verdict::Stored));
    }

    #[test]
    fn a_name_of_another_id_is_held_also_when_that_id_is_of_the_same_batch() {
        let plan = plan(
            &[(1, "zinc")],
            &[
                material(Some(2), "zinc"),
                material(None, "tin"),
                material(Some(3), "tin"),
            ],
        );
        assert!(held(&plan.verdicts[0]) && held(&plan.verdicts[2]));
        assert_eq!(plan.created, ["tin"]);
        assert!(plan.named.is_empty());
    }

    #[test]
    fn a_known_name_without_an_id_creates_nothing() {
        let plan = plan(
            &[(1, "zinc")],
            &[
                material(None, "zinc"),
                material(None, "tin"),
                material(None, "tin"),
            ],
        );
        assert_eq!(plan.created, ["tin"]);
        assert_eq!(plan.verdicts, [Verdict::Stored, Verdict::Stored, Verdict::Stored]);
    }

    #[test]
    fn an_unchanged_name_writes_nothing() {
        let plan = plan(&[(1, "zinc")], &[material(Some(1), "zinc")]);
        assert_eq!(
            (plan.named.len(), plan.parked.len(), plan.created.len()),
            (0, 0, 0)
        );
    }

    proptest! {
        /// The plan leaves the table as a database would that takes one material at a time.
        #[test]
        fn a_batch_ends_as_its_materials_one_by_one(
            start in proptest::collection::hash_map(1..5i32, "[a-d]", 0..4),
            batch in proptest::collection::vec((proptest::option::of(1..5i32), "[a-d]"), 0..12),
        ) {
            let mut seen = HashSet::new();
            let start: HashMap<i32, String> =
                start.into_iter().filter(|(_, name)| seen.insert(name.clone())).collect();
            let batch: Vec<_> = batch.into_iter().map(|(id, name)| MaterialData { id, name }).collect();
            let (mut rows, mut created) = (start.clone(), Vec::<String>::new());
            let mut verdicts = Vec::new();
            for MaterialData { id, name } in &batch {
                let other = rows.iter().any(|(row, taken)| taken == name && Some(*row) != *id)
                    || created.contains(name);
                match id {
                    Some(_) if other => { verdicts.push(true); continue }
                    Some(id) => { rows.insert(*id, name.clone()); }
                    None if other => {}
                    None => created.push(name.clone()),
                }
                verdicts.push(false);
            }
            let plan = Plan::make(start.clone(), batch.iter());
            let mut end = start;
            end.extend(plan.named.clone());
            prop_assert_eq!(end, rows);
            prop_assert_eq!(&plan.created, &created);
            prop_assert_eq!(plan.verdicts.iter().map(held).collect::<Vec<_>>(), verdicts);
        }
    }
}
