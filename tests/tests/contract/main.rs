//! The recorded cases of the original service, replayed against this one.
//!
//! One fresh database per file, the limiter off. A case must answer as recorded, status, body and the records that
//! go to Kafka, unless `differences.rs` says why not and what instead.

mod case;
mod differences;
mod replay;
mod server;

use shopfloor_tests::postgres;

async fn replay(file: &str) {
    let url = postgres::fresh_database().await;
    let server = server::Server::start(&url).await;
    let problems = replay::replay(file, &server).await;
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
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
