//! What the original's clients hold of the REST API, against a real Postgres.
//!
//! - This file, `case`, `replay` and `differences`: the recorded cases of the original. One fresh database per file,
//!   the limiter off. A case must answer as recorded, status, body and the records that go to Kafka, unless
//!   `differences` says why not and what instead.
//! - `kafka`: the same cases with the relay and a real Kafka behind them.
//! - `operations`, `units`: rules that no recorded case shows.
//! - `requests`: paths, methods and bodies as the original took them, and the document.
//! - `races`: many requests for the same thing at once.
//! - `limits`: the rate limit, protocols and what a client sees while Postgres is away.
//! - `databases`: empty ones and those that the original made.

mod case;
mod databases;
mod differences;
mod kafka;
mod limits;
mod operations;
mod races;
mod replay;
mod requests;
mod units;

use shopfloor_tests::rest as server;

async fn replay(file: &str) {
    let server = server::Server::fresh().await;
    let problems = replay::replay(file, &server).await;
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn materials_answer_as_recorded() {
    replay("01_materials").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_answer_as_recorded() {
    replay("02_prices").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_answer_as_recorded() {
    replay("03_parts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_answer_as_recorded() {
    replay("04_machines").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supply_chain_answers_as_recorded() {
    replay("05_supply_chain").await;
}

#[test]
fn every_deliberate_difference_names_a_recorded_case() {
    for difference in differences::ALL {
        let cases = case::load(difference.file);
        let found = cases.iter().filter(|case| case.name == difference.case).count();
        assert_eq!(found, 1, "{} / {}", difference.file, difference.case);
    }
}
