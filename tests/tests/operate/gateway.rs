//! A gateway that devices reach without HAProxy, and a device.

use std::path::Path;

use shopfloor::parts::Backend;
use shopfloor_tests::python::Paho;
use shopfloor_tests::server::Server;

/// Its configuration; `bridge` is the part that differs.
pub(crate) fn config(dir: &Path, at: Backend, bridge: &str) -> String {
    format!(
        r#"
[gateway]
id = "line-1"
data_dir = "{data}"

[mqtt]
max_packet_bytes = 65536

[mqtt.auth]
allow_anonymous = true

[[mqtt.listeners]]
listen = "{listen}"

[admin]
listen = "{admin}"

# A look at a live spool reads three commits behind the newest record, which an unoptimised build does slowly.
[bridge.spool]
segment_max_bytes = 1048576
commit_max_bytes = 131072

{bridge}
"#,
        data = dir.join("data").display(),
        listen = at.address,
        admin = at.admin(),
    )
}

pub(crate) fn start(dir: &Path, at: Backend, bridge: &str) -> Server {
    let mut server = Server::spawn("gateway", dir, &config(dir, at, bridge), at.admin());
    server.wait_ready();
    server
}

/// Publishes with QoS 1; everything is acknowledged when it returns.
pub(crate) fn publish(at: Backend, client_id: &str, topic: &str, payloads: &[String]) {
    let acknowledged = Paho {
        broker: at.address,
        version: "311",
        qos: 1,
        client_id,
        topic,
    }
    .publish(payloads);
    assert_eq!(acknowledged.len(), payloads.len());
}

pub(crate) fn unit(machine: u32, order: u32) -> String {
    format!(
        r#"{{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":{order},"var5":false,"machineId":{machine},"partId":4}}"#
    )
}
