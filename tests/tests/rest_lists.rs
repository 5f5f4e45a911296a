//! Lists by pages, lists of some units, and a list of a million units.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shopfloor_tests::rest::{Answer, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The address of the next page, under `/api/v1`.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    let target = link.strip_prefix("</api/v1")?.strip_suffix(">; rel=\"next\"")?;
    Some(target.to_owned())
}

/// All pages from `path` on.
async fn pages(server: &Server, path: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(next_path) = path {
        let answer = server.get(&next_path).await;
        assert_eq!(answer.status, 200, "{next_path}: {}", answer.body);
        path = next(&answer);
        pages.push(answer.body.as_array().unwrap().clone());
        assert!(pages.len() < 1_000, "pages without end");
    }
    pages
}

async fn sql(server: &Server, script: &str) {
    server.database.batch_execute(script).await.unwrap();
}

/// Two machines, two parts and, of each pair of them, units at the seconds 0 to 9 from 2024 on, two at each.
async fn factory() -> Server {
    let server = Server::fresh().await;
    let script = "
        INSERT INTO machine SELECT generate_series(1, 2);
        INSERT INTO part_information (\"timeToProduce\") VALUES (1), (2);
        INSERT INTO supply_chain (\"machineId\", \"timeOfProduction\", \"partId\", \"order\", var5)
            SELECT machine, 1704067200 + second, part, 1, true
            FROM generate_series(1, 2) machine, generate_series(1, 2) part, generate_series(0, 9) second,
                 generate_series(1, 2)
            ORDER BY random()";
    sql(&server, script).await;
    server
}

#[tokio::test]
async fn pages_of_every_list_hold_each_row_once_and_the_last_has_no_next() {
    let server = factory().await;
    let script = "
        INSERT INTO machine SELECT generate_series(3, 25);
        INSERT INTO material (name) SELECT 'm' || n FROM generate_series(1, 25) n ORDER BY random();
        INSERT INTO part_information (\"timeToProduce\") SELECT 1 FROM generate_series(3, 25)";
    sql(&server, script).await;
    for (list, rows) in [
        ("/machine", 25),
        ("/materials", 25),
        ("/part-information", 25),
        ("/supply-chain", 80),
    ] {
        let whole: BTreeSet<String> = server
            .get(list)
            .await
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .collect();
        assert_eq!(whole.len(), rows, "{list}");
        for size in [1, 7, rows, 1000] {
            let pages = pages(&server, &format!("{list}?pageSize={size}")).await;
            let (last, full) = pages.split_last().unwrap();
            assert!(
                full.iter().all(|page| page.len() == size) && !last.is_empty(),
                "{list} {size}"
            );
            let rows: Vec<String> = pages.iter().flatten().map(Value::to_string).collect();
            assert_eq!(rows.len(), whole.len(), "{list} {size}");
            assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), whole, "{list} {size}");
        }
    }
}

#[tokio::test]
async fn rows_that_come_and_go_between_pages_neither_repeat_nor_hide_others() {
    let server = Server::fresh().await;
    sql(&server, "INSERT INTO machine SELECT generate_series(1, 20)").await;
    let first = server.get("/machine?pageSize=5").await;
    sql(
        &server,
        "DELETE FROM machine WHERE id IN (2, 5, 6); INSERT INTO machine VALUES (21)",
    )
    .await;
    let rest = pages(&server, &next(&first).unwrap()).await;
    let ids: Vec<i64> = rest
        .iter()
        .flatten()
        .map(|row| row["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, (7..=21).collect::<Vec<i64>>());
}

#[tokio::test]
async fn units_are_chosen_by_machine_part_and_time_with_and_without_pages() {
    let server = factory().await;
    for (query, rows) in [
        ("machineId=1", 40),
        ("partId=2", 40),
        ("machineId=1&partId=2", 20),
        ("machineId=9", 0),
        ("from=2024-01-01T00:00:03Z", 56),
        ("to=2024-01-01T00:00:03Z", 24),
        ("from=2024-01-01T00:00:03Z&to=2024-01-01T00:00:05Z", 16),
        // Units are stored by the second: of this one nothing is left.
        ("from=2024-01-01T00:00:08.001Z", 8),
        (
            "machineId=2&partId=1&from=2024-01-01T01:00:03%2B01:00&to=2024-01-01T00:00:04Z",
            2,
        ),
    ] {
        let whole = server.get(&format!("/supply-chain?{query}")).await;
        let whole = whole.body.as_array().unwrap();
        assert_eq!(whole.len(), rows, "{query}");
        let times: Vec<&str> = whole
            .iter()
            .map(|unit| unit["timeOfProduction"].as_str().unwrap())
            .collect();
        assert!(times.is_sorted(), "{query}: {times:?}");
        let paged = pages(&server, &format!("/supply-chain?{query}&pageSize=3"))
            .await
            .concat();
        assert_eq!(&paged, whole, "{query}");
    }
}

#[tokio::test]
async fn a_query_that_names_no_parameter_of_the_list_is_ignored_and_any_other_must_be_right() {
    let server = factory().await;
    // As the original did, also of `limit`.
    assert_eq!(
        server.get("/machine?limit=1&machineId=1").await.body,
        json!([{"id": 1}, {"id": 2}])
    );
    let first = server.get("/supply-chain?machineId=1&pageSize=1").await;
    let cursor = next(&first).unwrap();
    let after = cursor
        .split("after=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .to_owned();
    for (query, names) in [
        ("pageSize=0", "pageSize"),
        ("pageSize=1001", "pageSize"),
        ("pageSize=%2B2", "pageSize"),
        ("machineId=%2B1", "machineId"),
        ("pageSize=ten", "pageSize"),
        ("pageSize=1&pageSize=2", "pageSize"),
        ("pageSize=1&limit=1", "limit"),
        ("machineId=zero", "machineId"),
        ("machineId=99999999999", "machineId"),
        ("partId=-1", "partId"),
        ("from=yesterday", "from"),
        ("to=2024-13-01T00:00:00Z", "to"),
        ("from=2024-01-02T00:00:00Z&to=2024-01-01T00:00:00Z", "from"),
        ("after=bogus", "after"),
        // A cursor of one machine's units is none of another's, nor of a list without the filter.
        (&format!("machineId=2&after={after}"), "after"),
        (&format!("after={after}"), "after"),
        (&format!("machineId=1&after={}", &after[1..]), "after"),
    ] {
        let answer = server.get(&format!("/supply-chain?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        let texts = answer.body["message"].as_array().unwrap();
        assert!(texts[0].as_str().unwrap().contains(names), "{query}: {texts:?}");
    }
    let both = server.get("/supply-chain?pageSize=x&machineId=x").await;
    assert_eq!(both.body["message"].as_array().unwrap().len(), 2);
    let other = server.get(&format!("/machine?after={after}")).await;
    assert_eq!(other.status, 400);
}

#[tokio::test]
async fn a_page_has_an_entity_tag_of_its_own() {
    let server = factory().await;
    let page = "/supply-chain?machineId=1&pageSize=5";
    let first = server.get(page).await;
    let tag = first.header("etag").to_owned();
    let again = server
        .with(&[("if-none-match", &tag)], "GET", page, Value::Null)
        .await;
    assert_eq!((again.status, again.header("link")), (304, first.header("link")));
    let id = first.body[0]["id"].as_str().unwrap();
    let change = server
        .json("PATCH", &format!("/supply-chain/{id}"), json!({"order": 99}))
        .await;
    assert_eq!(change.status, 200);
    let changed = server
        .with(&[("if-none-match", &tag)], "GET", page, Value::Null)
        .await;
    assert_eq!(changed.status, 200);
}

/// Memory that this process holds, in KiB.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_a_million_units_is_whole_and_in_memory_a_few_rows_at_a_time() {
    let server = Server::configured(|config| config.database.list_timeout_ms = 120_000).await;
    // The rows alone: indexes and triggers would only make the test longer.
    let script = "
        INSERT INTO machine VALUES (1);
        INSERT INTO part_information (\"timeToProduce\") VALUES (1);
        DROP INDEX supply_chain_by_time, supply_chain_by_machine, supply_chain_by_part;
        SET session_replication_role = replica;
        INSERT INTO supply_chain (id, \"machineId\", \"timeOfProduction\", \"partId\", \"order\", var5)
            SELECT lpad(to_hex(n), 32, '0')::uuid, 1, n, 1, n, true FROM generate_series(1, 1000000) n";
    sql(&server, script).await;
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /api/v1/supply-chain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let before = resident_kib();
    // Read as it comes, and counted: the client holds no more than the server does.
    let (mut bytes, mut rows, mut highest) = (0_usize, 0_usize, before);
    let mut buffer = vec![0; 256 * 1024];
    let mut end = Vec::new();
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        let chunk = &buffer[..read];
        // A key of every unit may be cut by the buffer's end or by a chunk's; a brace is one byte.
        rows += chunk.iter().filter(|byte| **byte == b'{').count();
        bytes += read;
        highest = highest.max(resident_kib());
        end = chunk[read.saturating_sub(8)..].to_vec();
    }
    assert!(
        end.ends_with(b"0\r\n\r\n"),
        "the list broke off after {rows} rows"
    );
    assert_eq!(rows, 1_000_000);
    assert!(bytes > 150 << 20, "{bytes}");
    let grown_mib = (highest - before) / 1024;
    assert!(grown_mib < 32, "{bytes} bytes took {grown_mib} MiB");
}
