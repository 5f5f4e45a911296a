//! Dead letters from the refused message to the replay that changes nothing any more.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use shopfloor::parts::{Backend, Kafka, Postgres};
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::dead_letters::header;
use shopfloor_bridge::kafka::{Cluster, Outgoing};
use shopfloor_tests::operator::{Ran, shopfloor};
use shopfloor_tests::python::{self, MigrationClient};
use shopfloor_tests::server::Server;
use shopfloor_tests::{kafka, postgres, wait};

use crate::gateway::{config, publish, start, unit};

const WITHIN: Duration = Duration::from_secs(60);
const DATABASE: &str = "factory";
const TOKEN: &str = "a token of the tests";

/// Kafka, Postgres, one API and one gateway, all reached directly.
struct Line {
    gateway: Server,
    at: Backend,
    bridge: Bridge,
    _api: Server,
    kafka: Kafka,
    postgres: Postgres,
    dir: tempfile::TempDir,
}

/// What the test changes of the gateway's configuration.
#[derive(Clone)]
struct Bridge {
    bootstrap: String,
    api: Backend,
    stamp: bool,
    max_record_bytes: u32,
}

impl Bridge {
    fn text(&self) -> String {
        let Self {
            bootstrap,
            api,
            stamp,
            max_record_bytes,
        } = self;
        format!(
            r#"
[[bridge.routes]]
filter = "line/{{machine}}/units"
topic = "supply_chain"
schema = "supply_chain"
stamp = {stamp}

[bridge.kafka]
bootstrap_servers = "{bootstrap}"
max_record_bytes = {max_record_bytes}

[bridge.api]
url = "http://{url}"
token = "{TOKEN}"
"#,
            url = api.address,
        )
    }
}

impl Line {
    /// Its route asks for stamps that no machine sends, and it takes only small records to Kafka.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let starting = std::thread::spawn(kafka::own);
        let postgres = postgres::own();
        postgres.create_database(DATABASE).unwrap();
        let kafka = starting.join().unwrap()?;
        let (at, api) = (
            Backend::on_free_ports().unwrap(),
            Backend::on_free_ports().unwrap(),
        );
        let bridge = Bridge {
            bootstrap: kafka.bootstrap(),
            api,
            stamp: false,
            max_record_bytes: 5_000,
        };
        let mut api_server = start_api(&dir.path().join("api"), &bridge, &postgres.url(DATABASE));
        let gateway = start(dir.path(), at, &bridge.text());
        api_server.wait_ready();
        let known = r#"INSERT INTO machine VALUES (7); INSERT INTO part_information VALUES (4, 1, 1);"#;
        postgres.psql(DATABASE, known).unwrap();
        Some(Self {
            gateway,
            at,
            bridge,
            _api: api_server,
            kafka,
            postgres,
            dir,
        })
    }

    /// Writes the configuration anew, for the commands and for the gateway's next start.
    fn mend(&mut self, mend: impl FnOnce(&mut Bridge)) {
        mend(&mut self.bridge);
        let text = config(self.dir.path(), self.at, &self.bridge.text());
        fs::write(self.dir.path().join("config.toml"), text).unwrap();
    }

    fn dlq(&self, args: &[&str]) -> Ran {
        let file = self.dir.path().join("config.toml");
        let mut all = vec!["dlq"];
        all.extend(args);
        all.extend(["--config", file.to_str().unwrap()]);
        shopfloor(&all)
    }

    fn listed(&self, more: &[&str]) -> Vec<Value> {
        self.dlq(&[&["list", "--json"], more].concat()).ended(0).json()
    }

    /// Ids of the units in Postgres, with their orders.
    fn rows(&self) -> Vec<String> {
        let rows = r#"SELECT id, "order" FROM supply_chain ORDER BY "order";"#;
        let rows = self.postgres.psql(DATABASE, rows).unwrap();
        rows.lines().map(str::to_owned).collect()
    }

    fn in_kafka(&self) -> Vec<Value> {
        python::read_all(&self.kafka.bootstrap(), "supply_chain")
    }
}

fn start_api(dir: &Path, bridge: &Bridge, database_url: &str) -> Server {
    let config = format!(
        r#"
[api]
internal_token = "{TOKEN}"

[api.listener]
listen = "{listen}"

[api.database]
url = "{database_url}"

[admin]
listen = "{admin}"

[bridge.kafka]
bootstrap_servers = "{bootstrap}"
"#,
        listen = bridge.api.address,
        admin = bridge.api.admin(),
        bootstrap = bridge.bootstrap,
    );
    Server::spawn("api", dir, &config, bridge.api.admin())
}

fn text<'a>(letter: &'a Value, field: &str) -> &'a str {
    letter[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {letter}"))
}

#[test]
fn a_refused_message_is_found_mended_and_replayed_once_however_often_it_is_asked_for() {
    let Some(mut line) = Line::start() else { return };
    let mut client = MigrationClient::start(&line.kafka.bootstrap(), &["supply_chain"]);
    let units: Vec<String> = (1..=3).map(|order| unit(7, order)).collect();
    publish(line.at, "press-7", "line/7/units", &units);
    publish(
        line.at,
        "press-8",
        "line/8/units",
        &["\u{1b}[2J no unit".to_owned()],
    );
    wait::until("four dead letters", WITHIN, || {
        let listed = line.dlq(&["list", "--json"]);
        wait::holds(
            listed.code == 0 && listed.json().len() == 4,
            format!("{listed:?}"),
        )
    });

    // Found by each filter, and shown without harm.
    for (filter, count) in [
        (["--client", "press-7"], 3),
        (["--machine", "8"], 1),
        (["--topic", "supply_chain"], 4),
        (["--topic", "line/8/units"], 1),
        (["--reason", "ISDELETED"], 3),
        (["--since", "1h"], 4),
        (["--until", "1h"], 0),
        (["--limit", "2"], 2),
        (["--source", "disk"], 0),
    ] {
        assert_eq!(line.listed(&filter).len(), count, "{filter:?}");
    }
    let bad = line.listed(&["--machine", "8"]).remove(0);
    assert_eq!(
        (text(&bad, "gateway"), bad["sequence"].as_u64()),
        ("line-1", Some(4))
    );
    let shown = line.dlq(&["show", text(&bad, "id")]).ended(0).stdout;
    for part in [
        "a replay would be refused",
        "client id    press-8",
        r"\u{1b}[2J no unit",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let all = line.dlq(&["list"]).ended(0);
    assert!(
        !shown.contains('\u{1b}') && !all.stdout.contains('\u{1b}'),
        "{all:?}"
    );
    let by_place = line.dlq(&["show", "--json", text(&bad, "place")]).ended(0).json();
    assert_eq!(by_place.first(), Some(&bad));
    let nobody = line
        .dlq(&["show", "018c5153-e000-7000-8000-000000000001"])
        .ended(1);
    assert!(nobody.stderr.contains("no such letter"), "{nobody:?}");

    // What is not mended stays refused; the operator hears why.
    line.gateway.kill();
    let still = line.dlq(&["replay", "--all"]).ended(1).stdout;
    assert!(
        still.contains("still refused: `isDeleted` is missing and the route does not add it")
            && still.contains("0 replayed, 4 still refused"),
        "{still}"
    );
    line.dlq(&["replay"]).ended(2);

    line.mend(|bridge| bridge.stamp = true);
    let rehearsed = line
        .dlq(&["replay", "--client", "press-7", "--dry-run"])
        .ended(0)
        .stdout;
    assert!(
        rehearsed.contains("would go to Kafka's supply_chain and the production API")
            && rehearsed.contains("3 would be replayed"),
        "{rehearsed}"
    );
    assert_eq!((line.in_kafka().len(), line.rows().len()), (0, 0), "a rehearsal");

    let ids: Vec<String> = {
        let letters = line.listed(&["--client", "press-7"]);
        letters
            .iter()
            .map(|letter| text(letter, "id").to_owned())
            .collect()
    };
    let first = line.dlq(&["replay", &ids[0]]).ended(0).stdout;
    assert!(first.contains("1 replayed"), "{first}");
    let rest = line.dlq(&["replay", "--client", "press-7"]).ended(0).stdout;
    assert!(
        rest.contains("2 replayed, 0 still refused, 1 settled before"),
        "{rest}"
    );
    for again in [&["replay", "--client", "press-7"][..], &["replay", &ids[0]]] {
        let said = line.dlq(again).ended(0).stdout;
        assert!(said.contains("0 replayed"), "{said}");
    }

    let records = line.in_kafka();
    let sequences: Vec<&str> = records
        .iter()
        .map(|record| text(&record["headers"], "sequence"))
        .collect();
    assert_eq!(sequences, ["1", "2", "3"], "each once, with its own sequence");
    for (record, id) in records.iter().zip(&ids) {
        assert_eq!(text(&record["headers"], "record-id"), id);
    }
    let expected: Vec<String> = ids
        .iter()
        .zip(1..)
        .map(|(id, order)| format!("{id}|{order}"))
        .collect();
    assert_eq!(line.rows(), expected);
    wait::until("the old client has read three records", WITHIN, || {
        let read = client.look(<[_]>::len);
        wait::holds(read == 3, read)
    });

    // What nobody can mend is dropped.
    let counted = line.dlq(&["drop", "--all"]).ended(2);
    assert!(
        counted.stderr.contains("1 letters match; add --yes"),
        "{counted:?}"
    );
    line.dlq(&["drop", text(&bad, "id")]).ended(0);
    assert_eq!(line.listed(&[]), Vec::<Value>::new());
    let mut settled: Vec<String> = line
        .listed(&["--settled"])
        .iter()
        .map(|letter| text(letter, "settled").to_owned())
        .collect();
    settled.sort();
    assert_eq!(settled, ["dropped", "replayed", "replayed", "replayed"]);
    assert_eq!(
        client.close().len(),
        3,
        "no mark and no letter reached the client"
    );
}

#[test]
fn a_record_that_kafka_refuses_waits_on_disk_and_is_replayed_to_kafka_alone() {
    let Some(mut line) = Line::start() else { return };
    let stamped = format!(
        r#","isDeleted":false,"lastUpdate":"2023-12-10 00:00:00.0000000","note":"{}"}}"#,
        "x".repeat(10_000)
    );
    let large = |order| unit(7, order).replace('}', &stamped);
    publish(
        line.at,
        "press-7",
        "line/7/units",
        &[large(1), large(2), large(3)],
    );
    wait::until("three letters on disk", WITHIN, || {
        let listed = line.dlq(&["list", "--json", "--source", "disk"]);
        wait::holds(
            listed.code == 0 && listed.json().len() == 3,
            format!("{listed:?}"),
        )
    });
    wait::until("three rows", WITHIN, || {
        let rows = line.rows();
        wait::holds(rows.len() == 3, format!("{rows:?}"))
    });
    let mut letters = line.listed(&[]);
    for (letter, sequence) in letters.iter().zip([1, 2, 3]) {
        assert_eq!(
            (text(letter, "refused_by"), letter["sequence"].as_u64()),
            ("kafka", Some(sequence))
        );
    }
    let rows = line.rows();

    // While the gateway runs, and has them open.
    let still = line.dlq(&["replay", "--all"]).ended(1).stdout;
    assert!(still.contains("raise bridge.kafka.max_record_bytes"), "{still}");
    line.mend(|bridge| bridge.max_record_bytes = 1_000_000);
    line.dlq(&["replay", "disk/2"]).ended(0);
    // Two operators on one machine: one after the other.
    let lock = File::create(line.dir.path().join("data/dead-letters-settled.lock")).unwrap();
    lock.lock().unwrap();
    for command in ["drop", "replay"] {
        let refused = line.dlq(&[command, "disk/3", "--source", "disk"]).ended(2);
        assert!(
            refused.stderr.contains("another `shopfloor dlq` command"),
            "{refused:?}"
        );
    }
    drop(lock);
    line.dlq(&["drop", "disk/3", "--source", "disk"]).ended(0);
    letters.pop();
    line.gateway.kill();
    line.dlq(&["replay", "--all", "--source", "disk"]).ended(0);
    let again = line.dlq(&["replay", "--all"]).ended(0).stdout;
    assert!(again.contains("0 replayed"), "{again}");

    let mut ids: Vec<String> = line
        .in_kafka()
        .iter()
        .map(|record| text(&record["headers"], "record-id").to_owned())
        .collect();
    ids.sort();
    let mut expected: Vec<String> = letters
        .iter()
        .map(|letter| text(letter, "id").to_owned())
        .collect();
    expected.sort();
    assert_eq!(ids, expected, "each once in Kafka");
    assert_eq!(line.rows(), rows, "the API had them, and was not asked");
    let file = line.dir.path().join("config.toml");
    let status = shopfloor(&["spool", "status", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!(
        status.ended(0).json()[0]["dead_letters_on_disk"],
        0,
        "their space is given back"
    );
}

#[test]
fn a_replay_that_was_cut_off_is_finished_and_not_repeated() {
    let Some(mut line) = Line::start() else { return };
    let units: Vec<String> = (1..=2).map(|order| unit(7, order)).collect();
    publish(line.at, "press-7", "line/7/units", &units);
    wait::until("two dead letters", WITHIN, || {
        let listed = line.dlq(&["list", "--json"]);
        wait::holds(
            listed.code == 0 && listed.json().len() == 2,
            format!("{listed:?}"),
        )
    });
    line.mend(|bridge| bridge.stamp = true);
    let letters = line.listed(&[]);

    // As a replay leaves them that was killed: both begun, the first one's record in Kafka.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::open(&KafkaConfig {
            bootstrap_servers: line.kafka.bootstrap(),
            ..KafkaConfig::default()
        })
        .unwrap();
        let topics = vec!["supply_chain".into(), "dead_letter".into()];
        cluster.ensure_topics(topics).await.unwrap();
        let producer = cluster.producer(None).unwrap();
        let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let mut records: Vec<Box<Outgoing<()>>> = Vec::new();
        for letter in &letters {
            records.push(Box::new(Outgoing {
                topic: "dead_letter".into(),
                key: owned(text(letter, "key")),
                value: owned("{}"),
                headers: vec![
                    (header::SETTLED, owned("begun")),
                    (header::LETTER, owned(text(letter, "place"))),
                    (header::GATEWAY, owned("line-1")),
                    (header::RECORD_ID, owned(text(letter, "id"))),
                    (header::SETTLED_AT, owned(text(letter, "received"))),
                    (header::KAFKA_TOPIC, owned("supply_chain")),
                ],
                origin: (),
            }));
        }
        let stamps = r#","isDeleted":false,"lastUpdate":"2023-12-10 00:00:00.0000000"}"#;
        records.push(Box::new(Outgoing {
            topic: "supply_chain".into(),
            key: owned("7"),
            value: units[0].replace('}', stamps).into(),
            headers: vec![(header::RECORD_ID, owned(text(&letters[0], "id")))],
            origin: (),
        }));
        let mut left = records.len();
        assert!(producer.produce(records).0.is_empty());
        while left > 0 {
            for confirmation in producer.confirmations().await {
                confirmation.outcome.unwrap();
                left -= 1;
            }
        }
    });

    assert_eq!(
        line.listed(&[]).len(),
        2,
        "neither is settled before somebody looks"
    );
    let finished = line.dlq(&["replay", "--all"]).ended(0).stdout;
    assert!(
        finished.contains("1 replayed, 0 still refused, 1 settled before"),
        "{finished}"
    );
    line.dlq(&["replay", "--all"]).ended(0);
    let ids: Vec<String> = line
        .in_kafka()
        .iter()
        .map(|record| text(&record["headers"], "record-id").to_owned())
        .collect();
    let expected: Vec<&str> = letters.iter().map(|letter| text(letter, "id")).collect();
    assert_eq!(ids, expected, "each once in Kafka");
    assert_eq!(line.listed(&[]), Vec::<Value>::new());
}
