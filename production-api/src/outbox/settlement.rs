//! What an answer of Kafka means for the table's rows.

use std::collections::HashSet;

use super::publisher::PublishError;

/// A row that was given to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) position: i64,
    pub(super) topic: String,
    pub(super) key: String,
}

/// What to do with the rows of one batch. Rows named nowhere stay and are sent again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settlement {
    /// Confirmed: to be removed.
    pub(super) delivered: Vec<i64>,
    /// Refused for good: to be marked with the reason.
    pub(super) refused: Vec<(i64, String)>,
    /// Topics with a record that is to be sent again, each with the first reason.
    pub(super) failed: Vec<(String, String)>,
}

impl Settlement {
    /// `results` is one a row, in order; a missing one counts as unconfirmed.
    ///
    /// A confirmed record behind an unconfirmed one of its key stays: it is sent again behind it, so that the
    /// last record of the key that Kafka holds is the last that was written.
    pub(super) fn of(given: &[Given], results: Vec<Result<(), PublishError>>) -> Self {
        let mut settlement = Self::default();
        let mut unconfirmed: HashSet<(&str, &str)> = HashSet::new();
        let mut results = results.into_iter();
        for row in given {
            let result = results
                .next()
                .unwrap_or_else(|| Err(PublishError::Unavailable("the publisher gave no answer".into())));
            let key = (row.topic.as_str(), row.key.as_str());
            match result {
                Ok(()) if unconfirmed.contains(&key) => {}
                Ok(()) => settlement.delivered.push(row.position),
                Err(PublishError::Refused(reason)) => settlement.refused.push((row.position, reason)),
                Err(PublishError::Unavailable(reason)) => {
                    unconfirmed.insert(key);
                    if settlement.failed.iter().all(|(topic, _)| *topic != row.topic) {
                        settlement.failed.push((row.topic.clone(), reason));
                    }
                }
            }
        }
        settlement
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(position: i64, topic: &str, key: &str) -> Given {
        Given {
            position,
            topic: topic.into(),
            key: key.into(),
        }
    }

    fn unavailable() -> Result<(), PublishError> {
        Err(PublishError::Unavailable("timed out".into()))
    }

    #[test]
    fn a_confirmed_record_behind_an_unconfirmed_one_of_its_key_is_sent_again() {
        let given = [
            row(1, "material", "1"),
            row(2, "material", "1"),
            row(3, "material", "2"),
        ];
        let settlement = Settlement::of(&given, vec![unavailable(), Ok(()), Ok(())]);
        assert_eq!(settlement.delivered, [3]);
        assert_eq!(settlement.failed, [("material".into(), "timed out".into())]);
    }

    #[test]
    fn the_same_key_of_another_topic_is_another_aggregate() {
        let given = [row(1, "material", "1"), row(2, "machine", "1")];
        let settlement = Settlement::of(&given, vec![unavailable(), Ok(())]);
        assert_eq!(settlement.delivered, [2]);
    }

    #[test]
    fn a_refused_record_does_not_hold_up_its_key() {
        let given = [row(1, "material", "1"), row(2, "material", "1")];
        let refused = Err(PublishError::Refused("too large".into()));
        let settlement = Settlement::of(&given, vec![refused, Ok(())]);
        assert_eq!(settlement.refused, [(1, "too large".to_owned())]);
        assert_eq!(settlement.delivered, [2]);
        assert!(settlement.failed.is_empty());
    }

    #[test]
    fn rows_without_an_answer_stay() {
        let given = [row(1, "material", "1"), row(2, "material", "2")];
        let settlement = Settlement::of(&given, vec![Ok(())]);
        assert_eq!(settlement.delivered, [1]);
        assert_eq!(settlement.failed.len(), 1);
    }

    proptest! {
        /// Whatever Kafka fails, the last record of a key that it holds in the end is the last that was written.
        #[test]
        fn the_last_record_of_a_key_in_kafka_is_the_last_that_was_written(
            keys in proptest::collection::vec(0..3u8, 1..12),
            failures in proptest::collection::vec(proptest::bool::weighted(0.4), 0..60),
        ) {
            let mut table: Vec<Given> =
                (0i64..).zip(&keys).map(|(position, key)| row(position, "t", &key.to_string())).collect();
            let (mut failures, mut kafka) = (failures.into_iter(), Vec::<Given>::new());
            while !table.is_empty() {
                let results: Vec<_> = table.iter().map(|row| {
                    if failures.next().unwrap_or(false) {
                        return unavailable();
                    }
                    kafka.push(row.clone());
                    Ok(())
                }).collect();
                let delivered = Settlement::of(&table, results).delivered;
                table.retain(|row| !delivered.contains(&row.position));
            }
            for key in &keys {
                let key = key.to_string();
                let written = (0i64..).zip(&keys).filter(|(_, k)| k.to_string() == key).map(|(p, _)| p).last();
                let held = kafka.iter().rev().find(|row| row.key == key).map(|row| row.position);
                prop_assert_eq!(held, written);
            }
        }
    }
}
