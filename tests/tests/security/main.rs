//! Who is let in, as whom, and what it may do: third parties' clients against the real binary, and an operator who
//! changes certificates, passwords and rules while it runs.

#[path = "../../../broker/tests/common/pki.rs"]
#[allow(dead_code, unreachable_pub)] // the broker's own authority; each test uses its part
mod pki;

mod certificates;
mod check;
mod clients;
mod passwords;
mod reload;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use shopfloor::parts::Backend;
use shopfloor::parts::process::free_port;
use shopfloor_tests::server::Server;
use shopfloor_tests::{http, python, repository};

use pki::Pki;

/// A gateway with a password file, and a rule that gives each user its own topics.
struct Gateway {
    /// Its files lie in the authority's directory.
    pki: Pki,
    server: Server,
    tcp: SocketAddr,
    /// Asks for a client's certificate.
    tls: SocketAddr,
}

impl Gateway {
    fn start() -> Self {
        Self::with(|_pki| String::new())
    }

    /// With further listeners.
    fn with(listeners: impl FnOnce(&Pki) -> String) -> Self {
        let pki = Pki::new();
        pki.write_crl(&[]);
        pki.write("acl.toml", &own_topics("factory"));
        set_password(&pki, "operator", "geheim");
        let at = Backend::on_free_ports().expect("free ports");
        let tls = free_address();
        let config = format!(
            r#"
[gateway]
data_dir = "{dir}/data"

[[mqtt.listeners]]
listen = "{tcp}"

[[mqtt.listeners]]
listen = "{tls}"
transport = "tls"
tls = {{ certificate = "{dir}/server.pem", key = "{dir}/server.key", client_ca = "{dir}/ca.pem", crl = "{dir}/crl.pem", require_client_certificate = true }}

{listeners}

[mqtt.auth]
password_file = "{dir}/passwords"

[mqtt.acl]
file = "{dir}/acl.toml"

[bridge]
drain_timeout_ms = 0

[bridge.kafka]
bootstrap_servers = "127.0.0.1:1"

[admin]
listen = "{admin}"
"#,
            dir = pki.dir.path().display(),
            listeners = listeners(&pki),
            tcp = at.address,
            admin = at.admin(),
        );
        let mut server = Server::spawn("gateway", pki.dir.path(), &config, at.admin());
        server.wait_ready();
        Self {
            pki,
            server,
            tcp: at.address,
            tls,
        }
    }

    /// A counter; zero while it was never counted.
    fn count(&self, name_and_labels: &str) -> u64 {
        let metrics = http::get(self.server.admin(), "/metrics").expect("metrics").body;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    /// A certificate and its key as files, for a client that takes files.
    fn issue(&self, name: &str, serial: u64) {
        let device = self.pki.issue(name, serial);
        self.pki.write(&format!("{name}.pem"), &device.certificate.pem());
        self.pki
            .write(&format!("{name}.key"), &device.key.serialize_pem());
    }
}

fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port().expect("a free port")).into()
}

/// As an operator sets it.
fn set_password(pki: &Pki, user: &str, password: &str) {
    let mut passwd = Command::new(repository::binary());
    passwd.arg("passwd").arg(pki.path("passwords")).arg(user);
    python::run(passwd, format!("{password}\n")).expect("shopfloor passwd");
}

/// The rules' file: each user has what lies under its name, and nothing else.
fn own_topics(root: &str) -> String {
    format!("[[rules]]\naccess = \"readwrite\"\ntopics = [\"{root}/%u/#\"]\n")
}
